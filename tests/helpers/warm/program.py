"""Runs a test's own program as `python -c` would: `python -m ...program TEXT WORD...`.

In ordinary tests that is a fork with read libraries, since most of such a program's time would be
the reading of PyTorch.
"""

from __future__ import annotations

import sys


def main() -> None:
    text = sys.argv[1]
    sys.argv = ["-c", *sys.argv[2:]]
    exec(text, {"__name__": "__main__"})


if __name__ == "__main__":
    main()
