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

    Taking the interpreter down object by object would cost a second of computing with torch
    loaded, on a busy machine many, and a thread that an environment has left behind would hold it
    up for ever. Handlers of `atexit` are called, as libraries end their helpers there.

    Args:
        command: May end by SystemExit. Any other exception ends the process as Python does.
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
    """Everything is said: the first signal changes nothing, a second one ends what does not end."""
    signal.signal(number, signal.SIG_DFL)
