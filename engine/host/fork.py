"""A function of this process as a child of its own, which starts in milliseconds: all libraries
that this process has read are there."""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from typing import Protocol

from engine.host.descriptors import MOST
from engine.host.end_signals import END_SIGNAL
from engine.host.process import die_with_parent

END_S = 2.0
_GARBAGE = 50_000
"""So many new objects before the garbage collector looks at the young ones; else 700."""


class Child(Protocol):
    """What a `subprocess.Popen` and a `Fork` have in common."""

    @property
    def pid(self) -> int: ...

    @property
    def returncode(self) -> int | None:
        """None until its end was seen; negative after a signal."""
        ...

    def poll(self) -> int | None:
        """Its `returncode` now."""
        ...

    def wait(self, timeout: float | None = None) -> int:
        """Raises subprocess.TimeoutExpired after so many seconds."""
        ...

    def send_signal(self, sig: int) -> None: ...

    def kill(self) -> None: ...


def end(child: Child) -> None:
    """Ends a child by `END_SIGNAL`, or kills it if it takes longer than `END_S` for that."""
    if child.poll() is not None:
        return
    child.send_signal(END_SIGNAL)
    try:
        child.wait(END_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


class Fork:
    """A child that calls a function and ends: with 0, or 1 if it raises.

    It has one thread, is ended by `END_SIGNAL` when the thread that has made it ends, and closes
    what this process has open. The function must neither return into what this process was doing
    nor wait for a thread of it.

    Args:
        act: The function. It is to say itself what the signals of its end do.
        log: Descriptor for standard output and standard error, where an exception is told last.
        kept: Descriptors that it keeps.
    """

    def __init__(self, act: Callable[[], None], log: int, kept: Sequence[int] = ()) -> None:
        self.returncode: int | None = None
        parent = os.getpid()
        self._lives, writing = os.pipe()
        """Ends when the child does: nobody else writes."""
        held = signal.pthread_sigmask(signal.SIG_BLOCK, {END_SIGNAL, signal.SIGTERM})
        try:
            with warnings.catch_warnings():  # of other threads, for which nothing here waits
                warnings.simplefilter("ignore", DeprecationWarning)
                self.pid = os.fork()
            if self.pid == 0:
                _be_child(act, log, (*kept, writing), parent, held)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, held)
            os.close(writing)

    def poll(self) -> int | None:
        """See `Child`."""
        self._look(os.WNOHANG)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """See `Child`."""
        if self.returncode is None:
            ends = select.poll()
            ends.register(self._lives)
            if not ends.poll(None if timeout is None else 1000 * timeout):
                raise subprocess.TimeoutExpired("a fork", timeout or 0.0)
            self._look(0)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, sig: int) -> None:
        """See `Child`."""
        if self.poll() is None:  # its number is not another's
            os.kill(self.pid, sig)

    def kill(self) -> None:
        """See `Child`."""
        self.send_signal(signal.SIGKILL)

    def _look(self, options: int) -> None:
        if self.returncode is not None:
            return
        try:
            pid, status = os.waitpid(self.pid, options)
        except ChildProcessError:  # code of a user has waited for any child
            pid, status = self.pid, 0
        if pid:
            self.returncode = os.waitstatus_to_exitcode(status)
            os.close(self._lives)


def _be_child(
    act: Callable[[], None],
    log: int,
    kept: Sequence[int],
    parent: int,
    held: set[int | signal.Signals],
) -> None:
    """In the child: does what it is for, and never returns."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        die_with_parent(parent, END_SIGNAL)
        _take_descriptors(log, kept)
        gc.freeze()  # nothing that was there is collected, and so none of its memory copied
        gc.set_threshold(_GARBAGE)
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
        act()
        code = 0
    except BaseException:  # noqa: BLE001 - whatever it is, it must not go on in what was forked
        with contextlib.suppress(Exception):
            traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
        os._exit(code)


def _take_descriptors(log: int, kept: Sequence[int]) -> None:
    """Keeps these, and closes all others; what is printed goes to the log."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    first = 3
    for number in sorted(kept):
        os.closerange(first, number)
        first = number + 1
    os.closerange(first, MOST)
    sys.stdout = open(1, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stdout
