"""Messages as JSON lines on a file descriptor: decoded as they arrive, written without blocking.

The reader of a supervisor's reports is a command that a user can suspend (Ctrl-Z) and whose
terminal can be paused (Ctrl-S, a pager). This must not affect the run: unwritten messages are
queued here.
"""

from __future__ import annotations

import os
import select
from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

import msgspec

from engine.control_protocol import Detached, Finished, Shown
from engine.messages import Message

T = TypeVar("T")
MAX_WAITING = 10_000
"""Messages. A run never reaches it, since only the latest progress is queued."""
LAST_WORDS = (Detached, Finished)
"""Each is sent once, and the reader waits for it: accepted even beyond the limit."""


class LineReader(Generic[T]):
    """Decodes JSON lines from a file descriptor as they arrive.

    Args:
        fd: Read without blocking once `read` is called; the caller polls it.
        message_type: What each line must be.
    """

    def __init__(self, fd: int, message_type: object) -> None:
        os.set_blocking(fd, False)
        self.fd = fd
        self.at_end = False
        self._decoder: msgspec.json.Decoder[T] = msgspec.json.Decoder(message_type)
        self._partial: list[bytes] = []
        """Pieces of the unfinished line; joined once, however long it gets."""

    def read(self) -> Iterator[T]:
        """All complete lines so far; sets `at_end` once the writer is gone.

        Raises:
            msgspec.DecodeError: A line is not one of the messages.
        """
        while True:
            try:
                data = os.read(self.fd, 1 << 16)
            except BlockingIOError:
                return
            if not data:
                self.at_end = True
                return
            first, *rest = data.split(b"\n")
            self._partial.append(first)
            for begin in rest:
                line = b"".join(self._partial)
                self._partial = [begin]
                yield self._decoder.decode(line)


def write_line(fd: int, message: Message) -> None:
    """Writes one message; blocks if the reader is slow.

    Raises:
        BrokenPipeError: The reader is gone.
    """
    data = memoryview(msgspec.json.encode(message) + b"\n")
    while data:
        data = data[os.write(fd, data) :]


class Backlog:
    """Messages to write, in order; outdated progress is left out.

    Args:
        max_waiting: Most messages in the queue.
    """

    def __init__(self, max_waiting: int = MAX_WAITING) -> None:
        self._max_waiting = max_waiting
        self._messages: deque[Message] = deque()
        self._line = memoryview(b"")

    def add(self, message: Message) -> None:
        """Adds a message; beyond `max_waiting` only final ones, since the first failures explain
        later ones."""
        if isinstance(message, Shown):
            self._messages = deque(m for m in self._messages if not isinstance(m, Shown))
        if len(self._messages) < self._max_waiting or isinstance(message, LAST_WORDS):
            self._messages.append(message)

    def head(self, max_bytes: int) -> memoryview:
        """The next bytes; empty if nothing is queued."""
        if not self._line and self._messages:
            self._line = memoryview(msgspec.json.encode(self._messages.popleft()) + b"\n")
        return self._line[:max_bytes]

    def written(self, num_bytes: int) -> None:
        """Bytes of the first message that were written."""
        self._line = self._line[num_bytes:]

    def __bool__(self) -> bool:
        return bool(self._line or self._messages)


class NonBlockingWriter:
    """Writes messages to a pipe or socket, as far as it accepts them.

    The descriptor stays in blocking mode, since others can share it. A write of at most `PIPE_BUF`
    bytes does not block after `poll` has reported that it is writable.

    Args:
        fd: Closed by `close` and `close_when_empty`, and when its reader is gone.
        owns: Whether it is closed then; a borrowed one is only released.
        max_waiting: Most messages in the queue; later ones are dropped.
    """

    def __init__(self, fd: int, *, owns: bool = True, max_waiting: int = MAX_WAITING) -> None:
        self._fd: int | None = fd
        self._owns = owns
        self._backlog = Backlog(max_waiting)
        self._is_last = False

    @property
    def is_open(self) -> bool:
        """Whether the reader still exists, as far as known."""
        return self._fd is not None

    @property
    def fd(self) -> int | None:
        """Descriptor to poll for writing; None if nothing is queued."""
        return self._fd if self._backlog else None

    def put(self, message: Message) -> None:
        """Writes a message now or, if the reader is slow, in a later `flush`."""
        if self._fd is not None and not self._is_last:
            self._backlog.add(message)
            self.flush()

    def flush(self) -> None:
        """Writes queued messages without blocking."""
        try:
            while self.wait(0.0):
                assert self._fd is not None
                self._backlog.written(os.write(self._fd, self._backlog.head(select.PIPE_BUF)))
        except BrokenPipeError:
            self.close()  # its end of input shows the same and ends the run
        if self._is_last and not self._backlog:
            self.close()

    def wait(self, timeout_s: float | None, *others: int) -> bool:
        """Waits until queued messages can be written, or one of the other descriptors can be read.

        Returns:
            False after the time-out.
        """
        if self.fd is None:
            return False
        poll = select.poll()
        poll.register(self.fd, select.POLLOUT)
        for fd in others:
            poll.register(fd, select.POLLIN)
        ready = poll.poll(None if timeout_s is None else timeout_s * 1000)
        return any(fd == self.fd for fd, _ in ready)

    def close_when_empty(self) -> None:
        """Accepts no more messages, and closes the descriptor once all are written."""
        self._is_last = True
        self.flush()

    def close(self) -> None:
        """Accepts no more messages; queued ones are lost."""
        if self._fd is not None and self._owns:
            os.close(self._fd)
        self._fd = None
