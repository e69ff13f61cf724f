"""Turns ways in which user code would silently end a process into exceptions."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn


class ExitCalled(BaseException):
    """User code called `os._exit` in the process of the whole run."""


@contextmanager
def no_silent_exit() -> Iterator[None]:
    """Makes `os._exit` an exception here: it would silently end the command, without a summary.

    Processes forked in the meantime still exit by it, as they must.
    """
    own_pid, leave = os.getpid(), os._exit

    def leave_unless_here(status: int) -> NoReturn:
        if os.getpid() == own_pid:
            raise ExitCalled(f"os._exit({status}) was called")
        leave(status)

    os._exit = leave_unless_here
    try:
        yield
    finally:
        os._exit = leave


class Interrupted(KeyboardInterrupt):
    """The user's own Ctrl-C, not one raised by user code."""


@contextmanager
def telling_interrupts_apart() -> Iterator[None]:
    """Raises `Interrupted` for a SIGINT that would raise KeyboardInterrupt."""
    is_default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not is_default or threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
        raise Interrupted

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
