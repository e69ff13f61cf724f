"""Coverage-guided search for inputs that break a promise: `make fuzz`, or this file directly.

    python tests/fuzz/fuzz.py frames -max_total_time=60 [libFuzzer options] [directory of inputs]

Needs atheris (`pip install atheris`). It stops at the first input that breaks a promise and leaves
it as `crash-...`: mend the code, then move that file to `corpus/<target>/`.
"""

from __future__ import annotations

import sys
import tempfile
import tracemalloc
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))


def main() -> int:
    """Runs one target until its time is over or something breaks."""
    try:
        import atheris
    except ImportError:
        print("fuzzing is skipped: it needs atheris (pip install atheris)", file=sys.stderr)
        return 0
    with atheris.instrument_imports(include=["engine", "tianji_cli"]):
        from tests.fuzz.fuzz_targets import TARGETS
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        print(f"usage: fuzz.py {'|'.join(TARGETS)} [libFuzzer options]", file=sys.stderr)
        return 2
    name = sys.argv.pop(1)
    with tempfile.TemporaryDirectory() as scratch:
        tracemalloc.start(1)
        target = TARGETS[name]
        options = [*sys.argv, str(HERE / "corpus" / name)]
        if not any(not word.startswith("-") for word in sys.argv[1:]):
            options.insert(1, tempfile.mkdtemp(dir=scratch))  # new inputs are not kept
        atheris.Setup(options, lambda data: target(data, Path(scratch)))
        atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
