"""A supervisor's link to the coordinator: messages, the run's clock, and a lease."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

from engine.clock import RunClock
from engine.control_protocol import Launch
from engine.errors import WireError
from engine.messages import COORDINATOR, Alive, AnyMessage
from engine.roles.coordinator.liveness import LEASE_S
from engine.wire.codec import Codec
from engine.wire.keys import KeyPair, Keyring
from engine.wire.sockets import Sockets, Wiring

FIRST_WORD_S = 60.0
"""Time-out for the coordinator's first message."""


class CoordinatorLink:
    """The link to the coordinator of a run.

    Args:
        launch: How the coordinator is reached, and the public keys of all members.
        address: The supervisor's own name.
        keys: The supervisor's own, if there is TCP.
        fds: Descriptors that also wake `receive` up.

    Attributes:
        clock: The run's timeline; None before the start.
    """

    def __init__(self, launch: Launch, address: str, keys: KeyPair | None, fds: list[int]) -> None:
        self.address = address
        self._host = launch.common.host
        self._offset_ns = launch.common.clock_offset_ns
        keyring = Keyring(keys, launch.common.members) if keys else None
        wiring = Wiring(links=(launch.coordinator,), keyring=keyring)
        self._sockets = Sockets(address, wiring, Codec.for_messages())
        self._lease_ends_s = time.monotonic() + FIRST_WORD_S
        self.clock: RunClock | None = None
        for fd in fds:
            self._sockets.watch(fd)

    def receive(self, timeout_s: float | None) -> Iterator[AnyMessage]:
        """All messages received so far; frames that must not be decoded are only reported."""
        for _, message in self._sockets.receive(timeout_s):
            if isinstance(message, WireError):
                print(f"refused: {message}", file=sys.stderr, flush=True)
            else:
                yield message

    def send(self, message: AnyMessage) -> None:
        """Sends without blocking; an unreachable coordinator is only reported."""
        try:
            self._sockets.send(COORDINATOR, message)
        except WireError as error:
            print(f"the coordinator does not listen: {error}", file=sys.stderr, flush=True)

    def beat(self) -> None:
        """Sends a heartbeat."""
        self.send(Alive(address=self.address, host=self._host))

    def hear(self) -> None:
        """Records a heartbeat of the coordinator."""
        self._lease_ends_s = time.monotonic() + LEASE_S

    def is_silent(self) -> bool:
        """Whether the coordinator has been silent for longer than its lease."""
        return time.monotonic() > self._lease_ends_s

    def start(self, origin_ns: int) -> None:
        """Sets time zero, given on the monotonic clock of the coordinator's host."""
        self.clock = RunClock(origin_ns + self._offset_ns)

    def unwatch(self, fds: list[int]) -> None:
        for fd in fds:
            self._sockets.unwatch(fd)

    def watch_writable(self, fds: set[int]) -> None:
        """Also wakes `receive` up when one of these descriptors, not earlier ones, is writable."""
        self._sockets.watch_writable(fds)

    def close(self) -> None:
        """Closes the sockets; unsent messages are lost."""
        self._sockets.close(linger_ms=0)
