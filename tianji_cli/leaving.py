"""Ends the command's process immediately after its last output."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run_and_leave(command: Callable[[], None]) -> NoReturn:
    """Runs a command, and ends the process with its exit code.

    Finalizing the interpreter costs a second of processor time with torch loaded, many seconds on a
    busy machine, and a thread left by an environment would block it for ever. `atexit` handlers are
    called, since libraries end their helpers there.

    Args:
        command: Can raise SystemExit. Any other exception ends the process as in Python.
    """
    code: int | str | None = 0
    try:
        command()
    except SystemExit as end:
        code = end.code
    if isinstance(code, str):
        print(code, file=sys.stderr)
    for number in ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _await_second)
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # the reader is gone
            stream.flush()
    os._exit(int(bool(code)) if isinstance(code, str) else code or 0)


def _await_second(number: int, _frame: FrameType | None) -> None:
    """After the last output, the first signal is ignored; a second one kills the process."""
    signal.signal(number, signal.SIG_DFL)
