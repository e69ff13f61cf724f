"""Restores process state that user code can change.

Under the policy `local`, environments and networks run in the command's own process; under other
policies the forkserver, from which all roles are forked, imports their modules. They can change the
working directory, umask, locale, signal handlers or streams, and some libraries do; files and
output of the program must not depend on that.
"""

from __future__ import annotations

import contextlib
import io
import locale
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn, TextIO

from engine.files import read_umask

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)


@contextlib.contextmanager
def restored_process(
    *, keeps_directory: bool = False, signals: Sequence[signal.Signals] = SIGNALS
) -> Iterator[None]:
    """Restores the process state after the block, for later files and output.

    The working directory is restored even if it was moved or removed in the meantime. Streams that
    were replaced are restored; one that was closed is opened again.

    Args:
        keeps_directory: Keeps the new working directory: more user code follows that can depend on
            it.
        signals: Signals whose handlers are restored.
    """
    directory = None if keeps_directory else _open_directory()
    handlers = {number: signal.getsignal(number) for number in signals}
    mask, words = read_umask(), _locale()
    streams = {name: getattr(sys, name) for name in ("stdout", "stderr")}
    try:
        yield
    finally:
        if directory is not None:
            with contextlib.suppress(OSError):
                os.fchdir(directory)
            with contextlib.suppress(OSError):  # user code can close streams that are not its own
                os.close(directory)
        os.umask(mask)
        for number, handler in handlers.items():
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)
        if words and _locale() != words:
            with contextlib.suppress(locale.Error):
                locale.setlocale(locale.LC_ALL, words)
        for descriptor, (name, stream) in enumerate(streams.items(), start=1):
            setattr(sys, name, _usable(stream, descriptor))


def _open_directory() -> int | None:
    with contextlib.suppress(OSError):
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY)
    return None


def _locale() -> str:
    with contextlib.suppress(locale.Error):
        return locale.setlocale(locale.LC_ALL)
    return ""


def _usable(stream: TextIO | None, descriptor: int) -> TextIO | None:
    """The stream itself, or one of the same descriptor if it was closed."""
    if stream is None or not stream.closed:
        return stream
    try:
        raw = io.FileIO(descriptor, "w", closefd=False)
    except OSError:
        return None
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding="utf-8", errors="backslashreplace")


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
