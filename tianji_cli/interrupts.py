"""Ctrl-C and similar signals as events, and the end of the command's process."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from engine.host.end_signals import Requests
from engine.host.process import flush_output


class Interrupts:
    """Counts Ctrl-C, SIGTERM and SIGHUP, and wakes up a selector.

    SIGTERMs that come together count once (`engine.host.end_signals`).

    Attributes:
        on_interrupt: Called in the signal handler, if set.
    """

    def __init__(self) -> None:
        self._requests = Requests()
        self.on_interrupt: Callable[[], None] | None = None
        self._installed: dict[int, Callable[[int, FrameType | None], None]] = {}
        self.fd, self._write_fd = os.pipe()
        os.set_blocking(self.fd, False)
        os.set_blocking(self._write_fd, False)

    @property
    def count(self) -> int:
        """How many times the user, or a cluster manager, has asked to end."""
        return self._requests.count

    def is_urgent(self) -> bool:
        """Whether the user asked to kill the run."""
        return self.count > 1

    @contextmanager
    def installed(self, on_interrupt: Callable[[], None] | None = None) -> Iterator[None]:
        """Handles SIGINT, SIGTERM and SIGHUP within the block; not SIGHUP under `nohup`."""
        self.on_interrupt = on_interrupt

        def handle(number: int, _frame: FrameType | None) -> None:
            is_new = self._requests.take(number, time.monotonic())
            if is_new and self.on_interrupt is not None:
                self.on_interrupt()

        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            numbers.append(signal.SIGHUP)
        earlier = {number: signal.signal(number, handle) for number in numbers}
        outer, self._installed = self._installed, dict.fromkeys(numbers, handle)
        earlier_fd = signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        try:
            yield
        finally:
            self._installed = outer
            signal.set_wakeup_fd(earlier_fd)
            for number, handler in earlier.items():
                signal.signal(number, handler)

    def insist(self) -> None:
        """Installs the handlers again if a library has replaced them within `installed`."""
        for number, handle in self._installed.items():
            if signal.getsignal(number) is not handle:
                signal.signal(number, handle)

    def drain(self) -> None:
        """Drains the pipe, so that a selector waits again."""
        try:
            os.read(self.fd, 4096)
        except BlockingIOError:
            return


@contextmanager
def interruptible() -> Iterator[None]:
    """Raises KeyboardInterrupt in the block for SIGTERM and SIGHUP as well; so it cleans up."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    with Interrupts().installed(interrupt):
        yield


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
    flush_output()
    os._exit(int(bool(code)) if isinstance(code, str) else code or 0)


def _await_second(number: int, _frame: FrameType | None) -> None:
    """After the last output, the first signal is ignored; a second one kills the process."""
    signal.signal(number, signal.SIG_DFL)
