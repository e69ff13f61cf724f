"""A supervisor's link to the command that started it: standard streams; SIGTERM once detached."""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import engine
from engine.control_protocol import Hello, ToSupervisor
from engine.host.end_signals import Requests
from engine.host.process import take_stdout
from engine.messages import Message
from engine.supervision.json_lines import LineReader, NonBlockingWriter

LAST_WORDS_S = 1.0
"""Time-out for a lost controller to read the last reports."""


def hello() -> Hello:
    """The first message of this supervisor."""
    return Hello(
        protocol=engine.PROTOCOL_VERSION,
        python=platform.python_version(),
        tianji=engine.__version__,
    )


class ControllerLink:
    """Reads instructions, writes reports, counts SIGTERM.

    Attributes:
        lease_s: Longest silence of a controller that is alive; None while it can be silent.
    """

    def __init__(self) -> None:
        self._writer = NonBlockingWriter(take_stdout())
        self._reader: LineReader[ToSupervisor] = LineReader(0, ToSupervisor)
        self._heard_s = time.monotonic()
        self._is_attached = True
        self.lease_s: float | None = None
        self._requests = Requests()
        self._taken = 0
        self._wake_read, self._wake_write = os.pipe()
        for fd in (self._wake_read, self._wake_write):
            os.set_blocking(fd, False)
        signal.signal(signal.SIGTERM, self._count)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)

    def _count(self, number: int, _frame: FrameType | None) -> None:
        self._requests.take(number, time.monotonic())

    @property
    def num_requests(self) -> int:
        """How many times SIGTERM has asked to end; several that come together count once."""
        return self._requests.count

    @property
    def fds(self) -> list[int]:
        """What to wait for."""
        return [self._wake_read, *([self._reader.fd] if self._is_attached else [])]

    def read(self) -> Iterator[ToSupervisor]:
        """All instructions received so far."""
        if self._is_attached:
            for instruction in self._reader.read():
                self._heard_s = time.monotonic()
                yield instruction

    def is_lost(self) -> bool:
        """Whether the controller is gone or has been silent for too long."""
        if not self._is_attached:
            return False
        silence_s = time.monotonic() - self._heard_s
        return self._reader.at_end or (self.lease_s is not None and silence_s > self.lease_s)

    def take_requests(self) -> int:
        """Requests to end since the last call."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 4096)
        new = self.num_requests - self._taken
        self._taken = self.num_requests
        return new

    def report(self, message: Message) -> None:
        """Sends a report to the controller, if there is one, without blocking."""
        self._writer.put(message)

    @property
    def unwritten_fd(self) -> int | None:
        """Descriptors to poll for writing while reports are queued."""
        return self._writer.fd

    def flush(self) -> None:
        """Writes queued reports, as far as the reader accepts them."""
        self._writer.flush()

    def drain(self) -> None:
        """Waits until all reports are written, also for a controller that is only stopped."""
        give_up_s: float | None = None
        while self._writer.fd is not None:
            for _ in self.read():
                pass  # its arrival shows that the controller is alive
            is_over = self.take_requests() > 0 or not self._is_attached or self.is_lost()
            now_s = time.monotonic()
            if is_over and give_up_s is None:
                self.leave()
                give_up_s = now_s + LAST_WORDS_S
            if give_up_s is not None and now_s >= give_up_s:
                return
            self._writer.wait(LAST_WORDS_S, *self.fds)  # so that silence is noticed
            self._writer.flush()

    def leave(self) -> list[int]:
        """Stops listening to the controller; returns the descriptors that are no longer polled."""
        self._is_attached = False
        return [self._reader.fd]

    def detach(self, log: Path) -> list[int]:
        """Closes all three standard streams, so that the SSH channel can close."""
        fds = self.leave()
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((nothing, 0), (descriptor, 1), (descriptor, 2)):
            os.dup2(source, target)
        os.close(descriptor)
        os.close(nothing)
        self._writer.close_when_empty()
        return fds
