"""The controller's channels to all supervisors of a run: one selector, one message at a time."""

from __future__ import annotations

import selectors
import time
from collections.abc import Callable, Iterator, Mapping

import msgspec

from engine.control_protocol import Beat, FromSupervisor
from engine.errors import RunFailedError
from engine.messages import Message
from engine.supervision.json_lines import LineReader, NonBlockingWriter
from tianji_cli.connectors.base import Connection
from tianji_cli.interrupts import Interrupts

BEAT_S = 3.0
"""Period of messages to supervisors behind SSH; see `Prepare.lease_s`."""


class SupervisorChannel:
    """One supervisor. Messages are queued here while it does not read, so neither waits for the
    other and Ctrl-C always works.

    Attributes:
        host: Its name in the inventory.
        is_open: Whether its output can still deliver something.
        ended_by: Why it delivers nothing any more; output that cannot be parsed ends it.
    """

    def __init__(self, connection: Connection) -> None:
        self.host = connection.host
        self.connection = connection
        self.is_open = True
        self.ended_by = "its output ended"
        self.writer = NonBlockingWriter(connection.to_supervisor, owns=False)
        self.reader: LineReader[FromSupervisor] = LineReader(
            connection.from_supervisor, FromSupervisor
        )

    def tell(self, message: Message) -> bool:
        """Sends a message without blocking. False if the other end is closed."""
        try:
            self.writer.put(message)
        except OSError:
            self.writer.close()
        return self.writer.is_open

    def died(self, cause: str) -> RunFailedError:
        """The error for this supervisor's death, with its last output."""
        self.connection.wait(1.0)
        said = self.connection.error_output()
        tail = "".join(f"\n    {text}" for text in said.splitlines()[-20:])
        return RunFailedError(f"the node supervisor failed: {cause}{tail}", where=self.host)


class SupervisorChannels:
    """All supervisors of a run.

    Args:
        connections: By host.
        interrupts: Wakes the selector up, too.
        beats: Hosts whose supervisors expect regular messages.
    """

    def __init__(
        self, connections: Mapping[str, Connection], interrupts: Interrupts, beats: set[str]
    ) -> None:
        self.by_host = {
            host: SupervisorChannel(connection) for host, connection in connections.items()
        }
        self._interrupts = interrupts
        self._beats = beats
        self._beat_at_s = 0.0
        self._writable: set[int] = set()
        self._selector = selectors.DefaultSelector()
        for line in self.by_host.values():
            self._selector.register(line.reader.fd, selectors.EVENT_READ, line)
        self._selector.register(interrupts.fd, selectors.EVENT_READ)

    def reports(
        self, deadline: Callable[[], float | None]
    ) -> Iterator[tuple[SupervisorChannel | None, FromSupervisor | None]]:
        """Yields every report with its line; (line, None) once, when a line ends; (None, None)
        after an interrupt. Ends at the deadline, and when no line is open.

        Args:
            deadline: Read in every iteration, since a report can set one (monotonic seconds).
        """
        while any(line.is_open for line in self.by_host.values()):
            now_s, deadline_s = time.monotonic(), deadline()
            if deadline_s is not None and now_s >= deadline_s:
                return
            self.beat(now_s)
            self._watch_writable()
            for key, events in self._selector.select(self._timeout_s(now_s, deadline_s)):
                if events & selectors.EVENT_WRITE:
                    key.data.writer.flush()
                elif key.data is None:
                    self._interrupts.drain()
                    yield None, None
                else:
                    yield from self._read(key.data)

    def _read(
        self, line: SupervisorChannel
    ) -> Iterator[tuple[SupervisorChannel | None, FromSupervisor | None]]:
        try:
            for report in line.reader.read():
                yield line, report
        except (msgspec.DecodeError, OSError) as error:
            line.ended_by = f"its output cannot be understood ({error})"
            line.reader.at_end = True
        if line.reader.at_end:
            line.is_open = False
            self._selector.unregister(line.reader.fd)
            yield line, None

    def _watch_writable(self) -> None:
        """Also waits for supervisors that have not read all their messages."""
        wanted = {fd: line for line in self.by_host.values() if (fd := line.writer.fd) is not None}
        for fd in self._writable - wanted.keys():
            self._selector.unregister(fd)
        for fd in wanted.keys() - self._writable:
            self._selector.register(fd, selectors.EVENT_WRITE, wanted[fd])
        self._writable = set(wanted)

    def beat(self, now_s: float) -> None:
        """Sends a heartbeat to hosts that expect one, if due."""
        if not self._beats or now_s < self._beat_at_s:
            return
        self._beat_at_s = now_s + BEAT_S
        for host in self._beats:
            if self.by_host[host].is_open:
                self.by_host[host].tell(Beat())

    def _timeout_s(self, now_s: float, deadline_s: float | None) -> float | None:
        times = [deadline_s] if deadline_s is not None else []
        if self._beats:
            times.append(self._beat_at_s)
        return max(0.0, min(times) - now_s) if times else None

    def close(self) -> None:
        self._selector.close()
