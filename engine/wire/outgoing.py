"""Outgoing messages of a process: handed to a connection, or queued while that accepts none.

A role that stalls for some seconds (a stopped process, a slow disk, a busy machine) must not end
those that send to it. Messages that ZeroMQ's queues do not accept are queued here, in order, until
there is room. Sending never blocks. Weights on the way to each peer are counted.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import zmq

from engine.errors import WireError
from engine.wire.header import Buffer
from engine.wire.socket_factory import LATEST
from engine.wording import plural

if TYPE_CHECKING:
    from engine.wire.sealing import Seals

MAX_HELD_BYTES = 64 * 2**20
"""For one peer. This is minutes of reports of the fastest run; a peer that stalls for that long is
given up earlier, see `engine.roles.coordinator.liveness`."""
RETRY_S = 0.01
"""How often a connection that accepted no data is tried again. ZeroMQ has no event for it: a ROUTER
socket is writable as soon as any of its peers is."""
MAX_IN_FLIGHT_BYTES = 64 * 2**20
"""Weights that may wait for one peer. Beyond this it misses versions, which newer ones supersede,
and asks again if it needs one. Frames of less than 64 KiB are not counted, since ZeroMQ copies them
and is done with them at once; as many as its high-water mark lets wait are no more than this."""
HERE: Sequence[Buffer] = (b"",)
"""A message that says nothing but that its sender is there."""
MIN_IN_FLIGHT = 4
"""Even if a frame is larger than that."""
MAX_ALL_BYTES = 2**30
"""Weights that may wait for all peers together, each sealed on its own; beyond this, one frame for
each."""


class Tracker(Protocol):
    """The state of one sent frame."""

    @property
    def done(self) -> bool:
        """Whether it has left this process, or was dropped with its connection."""
        ...


class InFlightWeights:
    """Counts frames that were sent to each peer and have not left yet.

    Args:
        frame_bytes: Size of the weights.
    """

    def __init__(self, frame_bytes: int) -> None:
        self._most_of_all = MAX_ALL_BYTES // frame_bytes
        self._most = max(MIN_IN_FLIGHT, MAX_IN_FLIGHT_BYTES // frame_bytes)
        self._sent: dict[str, deque[Tracker]] = {}

    def has_room(self, peer: str) -> bool:
        """Whether another frame may be sent to this peer."""
        num_waiting = self._num_waiting(peer)
        if not num_waiting or num_waiting >= self._most:
            return not num_waiting
        return sum(map(self._num_waiting, self._sent)) < self._most_of_all

    def _num_waiting(self, peer: str) -> int:
        sent = self._sent.get(peer, deque())
        while sent and sent[0].done:  # frames leave in the order of sending
            sent.popleft()
        return len(sent)

    def add(self, peer: str, tracker: Tracker) -> None:
        """Records a sent frame."""
        if not tracker.done:
            self._sent.setdefault(peer, deque()).append(tracker)


class Way(NamedTuple):
    """To a client of this process's server.

    Attributes:
        identity: Which the server socket gave it.
        connection: What is sealed for; empty if nothing is.
    """

    identity: bytes
    connection: bytes


class _Sealed(NamedTuple):
    """A message as it was when no connection took it."""

    frames: Sequence[Buffer]
    connection: bytes
    parts: Sequence[Buffer]


class Outgoing:
    """The connections of a process, as far as it sends by them.

    Messages over TCP are sealed when a connection takes them, not before: while they are queued,
    the other end can begin a new life.

    Args:
        in_flight: Counts weights.
        seals: Of this process, if it is connected to other hosts.

    Attributes:
        clients: Sockets that it has connected, by connection; set while they are opened.
        own: What is sealed for by each of them (`Seals.connection`), if anything is.
        server: The socket that others connect to, if there is one.
        learns_ways: Whether its connections have to be learnt, since names could be taken; then
            messages to them are sealed, too.
        ways: By the name of a connection then, learnt from what its member has sealed.
    """

    def __init__(self, in_flight: InFlightWeights, seals: Seals | None = None) -> None:
        self.clients: dict[str, zmq.Socket[bytes]] = {}
        self.own: dict[str, bytes] = {}
        self.server: zmq.Socket[bytes] | None = None
        self.learns_ways = False
        self.ways: dict[str, Way] = {}
        self._in_flight = in_flight
        self._seals = seals
        self._held: dict[str, deque[Sequence[Buffer]]] = {}
        self._held_bytes: dict[str, int] = {}
        self._sealed: dict[str, _Sealed] = {}
        self._requests: dict[str, Sequence[Buffer]] = {}
        """The last message by each connection for the latest."""

    @property
    def holds(self) -> bool:
        """Whether messages are queued, so that `release` must be called every `RETRY_S`."""
        return bool(self._held)

    def hand_over(
        self, connection: str, parts: Sequence[Buffer], *, is_repeated: bool = False
    ) -> bool:
        """Hands a message to a connection, or queues it until that accepts it.

        The protocol above bounds frequent messages, so only a stalled process has queued ones.

        Args:
            connection: Its name.
            parts: Of the message.
            is_repeated: The next of its kind replaces it, so it need not be queued.

        Returns:
            False if there is no connection, or if it was not worth queueing.

        Raises:
            WireError: Too much is queued for this connection.
        """
        if connection not in self._held:
            try:
                return self._give(connection, parts)
            except zmq.Again:
                pass  # queued or dropped, as below
        if is_repeated:
            return False
        self._hold(connection, parts)
        return True

    def send_weights(self, connection: str, frames: Sequence[Buffer]) -> bool:
        """Sends weights as one part, over a connection for the latest; False if it accepts none."""
        way = self._way_to(connection)
        if self.server is None or way is None or not self._in_flight.has_room(connection):
            return False
        parts = [way.identity, *self._seal(connection, way.connection, frames, as_one=True)]
        try:
            tracker = self.server.send_multipart(parts, zmq.DONTWAIT, copy=False, track=True)
        except zmq.ZMQError as error:
            if error.errno in (zmq.EAGAIN, zmq.EHOSTUNREACH):
                return False
            raise
        assert tracker is not None
        self._in_flight.add(connection, tracker)
        return True

    def release(self) -> None:
        """Sends queued messages, as far as they are accepted; drops those without a receiver."""
        for connection, messages in list(self._held.items()):
            try:
                while messages:
                    self._give(connection, messages[0])
                    self._held_bytes[connection] -= sum(map(len, messages.popleft()))
            except zmq.Again:
                continue
            del self._held[connection], self._held_bytes[connection]

    def close(self, linger_ms: int) -> None:
        """Closes all sockets; what was sent leaves within `linger_ms`, or is lost."""
        give_up_s = time.monotonic() + linger_ms / 1000
        while self._held and time.monotonic() < give_up_s:
            self.release()
            time.sleep(RETRY_S)
        for socket in (*self.clients.values(), self.server):
            if socket is not None:
                socket.close(linger_ms)

    def _hold(self, connection: str, parts: Sequence[Buffer]) -> None:
        num_bytes = self._held_bytes.get(connection, 0) + sum(map(len, parts))
        messages = self._held.setdefault(connection, deque())
        if num_bytes > MAX_HELD_BYTES:
            queued = plural(len(messages), "message")
            raise WireError(f"{connection} accepts no data; {queued} queued")
        self._held_bytes[connection] = num_bytes
        messages.append(parts)

    def announce(self, connection: str) -> None:
        """Tells the server of a connection that was made (again), which it can then answer by.

        One for the latest holds a single message, so there the last one is repeated.
        """
        message = self._requests.get(connection) if connection.endswith(LATEST) else HERE
        if message is not None:
            self.hand_over(connection, message, is_repeated=True)

    def _give(self, connection: str, frames: Sequence[Buffer]) -> bool:
        """Hands it to the connection; False if there is none.

        Raises:
            zmq.Again: It accepts nothing now.
        """
        head: list[bytes]
        client = self.clients.get(connection)
        if client is not None:
            if connection.endswith(LATEST):
                self._requests[connection] = frames
            socket, head, sealed_for = client, [], self.own.get(connection, b"")
        else:
            way = self._way_to(connection)
            if self.server is None or way is None:
                return False
            socket, head, sealed_for = self.server, [way.identity], way.connection
        parts = self._seal_once(connection, sealed_for, frames)
        try:
            socket.send_multipart([*head, *parts], zmq.DONTWAIT, copy=False)
        except zmq.Again:
            self._sealed[connection] = _Sealed(frames, sealed_for, parts)
            raise
        except zmq.ZMQError as error:
            if error.errno == zmq.EHOSTUNREACH:
                return False
            raise
        return True

    def _seal_once(
        self, connection: str, sealed_for: bytes, frames: Sequence[Buffer]
    ) -> Sequence[Buffer]:
        """As when it was tried before, if it was for the same life of the other end."""
        before = self._sealed.pop(connection, None)
        if before is not None and before.frames is frames and before.connection == sealed_for:
            return before.parts
        return self._seal(connection, sealed_for, frames)

    def _seal(
        self, connection: str, sealed_for: bytes, frames: Sequence[Buffer], *, as_one: bool = False
    ) -> Sequence[Buffer]:
        if not sealed_for:
            return frames
        assert self._seals is not None
        return self._seals.seal(connection.removesuffix(LATEST), sealed_for, frames, as_one=as_one)

    def _way_to(self, connection: str) -> Way | None:
        """None if it was never seen."""
        if self.learns_ways:
            return self.ways.get(connection)
        return Way(connection.encode(), b"")
