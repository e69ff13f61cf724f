"""The signals that end processes of a run: SIGTERM asks for it, `END_SIGNAL` does it.

A cluster manager that ends a job (Slurm's `scancel`, a time limit, preemption) sends SIGTERM to
every process of it at once. Only supervisors, and the command itself, take it: as a request to stop
the run. If the roles ended by it, none would be left to write the last checkpoint. So a supervisor
ends its roles by a signal that managers do not send.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

END_SIGNAL = signal.SIGUSR2
"""Ends a role, or a compiler that works for one. As after SIGTERM, the process cleans up."""
SAME_S = 1.0
"""SIGTERMs within this time are one request: Slurm sends two at a time limit, 3 ms apart."""


class Terminated(SystemExit):
    """Raised by a signal that ends this process. Any other SystemExit comes from user code."""


def end_by(number: int) -> None:
    """Raises `Terminated` in this process when that signal comes."""
    signal.signal(number, _terminate)


def leave_sigterm_to_supervisor() -> None:
    """Ignores SIGTERM in this process, but not in others that user code starts from it.

    A program is started with the default action, since a handler does not survive it; a fork ends
    as by `end_by`. So an environment can end its own simulator or workers with SIGTERM. A
    forkserver calls this again in each role that it forks.
    """
    signal.signal(signal.SIGTERM, _ignore)
    signal.siginterrupt(signal.SIGTERM, False)  # system calls of libraries go on


@contextmanager
def sigterm_held_back() -> Iterator[None]:
    """Delivers a SIGTERM after the block: also in a process that was forked in it.

    A program that was started in it must do so itself, with `deliver_sigterm`.
    """
    earlier = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, earlier)


def deliver_sigterm() -> None:
    """Ends `sigterm_held_back` in a program that was started in it."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """Whoever keeps this process ends it by another signal."""


def _end_forks_by_sigterm() -> None:
    """In a fork: also while it waits in a system call, which `signal` lets be interrupted again."""
    if signal.getsignal(signal.SIGTERM) is _ignore:
        end_by(signal.SIGTERM)


os.register_at_fork(after_in_child=_end_forks_by_sigterm)


def _terminate(number: int, _frame: FrameType | None) -> None:
    raise Terminated(128 + number)


class Requests:
    """Counts requests to end: SIGTERMs that come together are one.

    Attributes:
        count: So far.
    """

    def __init__(self) -> None:
        self.count = 0
        self._sigterm_s: float | None = None

    def take(self, number: int, now_s: float) -> bool:
        """Takes a signal.

        Args:
            number: The signal. All but SIGTERM count each time: people send them.
            now_s: When it came.

        Returns:
            Whether it is a new request.
        """
        if number == signal.SIGTERM:
            earlier_s = self._sigterm_s
            if earlier_s is not None and now_s - earlier_s < SAME_S:
                return False
            self._sigterm_s = now_s
        self.count += 1
        return True
