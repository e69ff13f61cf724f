"""Ends what a benchmark leaves if it dies itself: `python -m tianji_cli.bench.reaper TOKEN`.

Its standard input is a pipe that only the benchmark holds, so it ends with the benchmark, however
that dies. Then whatever still carries the token is ended.
"""

from __future__ import annotations

import sys

from engine.host.process_identity import end_all
from tianji_cli.bench.process_tree import TERMINATE_S, marked


def main() -> None:
    """Waits for the benchmark's end, then leaves nothing behind."""
    sys.stdin.buffer.read()
    end_all(lambda: marked(sys.argv[1]), TERMINATE_S)


if __name__ == "__main__":
    main()
