"""ZeroMQ sockets of one process: one server socket, and client sockets to the servers of others.

A process can run several roles, so a frame names the role that it is for, and a process knows the
process of each role that it sends to.

A process that receives requests binds one ROUTER; the requesting side connects a DEALER to it. The
protocol above bounds all flows except weights (tickets, batch requests), so high-water marks are
only a second limit. Weights arrive through a CONFLATE socket: the I/O thread keeps the latest and
drops older ones, so an actor that is busy collecting never queues weights. Weights queued for a
slow link are counted (`engine.wire.outgoing`); a high-water mark would apply to every other
message as well.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Self

import msgspec
import zmq

from engine.errors import WireError
from engine.messages import (
    COORDINATOR,
    AnyMessage,
    RolloutArrived,
    WeightsArrived,
    WeightsRequested,
    index_of,
    role_of,
)
from engine.spec import Compression
from engine.timing import OFF, RECEIVING, WAITING, Sections
from engine.wire import header
from engine.wire.codec import Codec
from engine.wire.header import Buffer
from engine.wire.keys import Keyring
from engine.wire.link_meter import LinkMeter
from engine.wire.outgoing import HERE, RETRY_S, InFlightWeights, Outgoing, Way
from engine.wire.reliable_links import REPEATED, ReliableLinks
from engine.wire.rollout_link import RolloutLink
from engine.wire.shared_receiver import SharedReceiver
from engine.wire.socket_factory import LATEST, LINGER_MS, Link, SocketFactory, seals_of

if TYPE_CHECKING:
    from zmq.auth.thread import ThreadAuthenticator


MAX_TAKEN = 256
"""Messages of one socket at a time, so that a flood of them does not keep timers and other sockets
waiting."""


class Wiring(msgspec.Struct, frozen=True, kw_only=True):
    """What a process needs to reach the others.

    Attributes:
        bind: Endpoint of its own server socket; empty if no process connects to it.
        listener: A descriptor that already listens there; the server socket takes it over.
        links: The servers that it connects to.
        routes: The process that runs each role, where the names differ.
        keyring: Needed as soon as one endpoint is TCP.
        neighbours: The processes of the same host, which share memory with this one.
        compression: Of rollouts that this process sends to other hosts.
    """

    bind: str = ""
    listener: int | None = None
    links: tuple[Link, ...] = ()
    routes: dict[str, str] = {}
    keyring: Keyring | None = None
    neighbours: frozenset[str] = frozenset()
    compression: Compression = "off"


class Sockets:
    """Sends and receives messages by address. Use as a context manager, in one thread.

    Args:
        address: This process's own address; its peers see it as the sender.
        wiring: What to bind and where to connect.
        codec: Frames to messages and back.
        roles: Roles of this process; by default the one that it is named after.
        sections: Where waiting and receiving are counted.

    Raises:
        PreflightError: The endpoint to bind is taken.
    """

    factory: type[SocketFactory] = SocketFactory

    def __init__(
        self,
        address: str,
        wiring: Wiring,
        codec: Codec,
        roles: Sequence[str] = (),
        sections: Sections = OFF,
    ) -> None:
        self.address = address
        self._codec = codec
        keyring = wiring.keyring
        self._seals = seals_of(address, keyring) if keyring is not None else None
        self._neighbours = wiring.neighbours
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(1)
        self._authenticator: ThreadAuthenticator | None = None
        self._poller = zmq.Poller()
        self._writable: set[int] = set()
        self._peers: dict[zmq.Socket[bytes], str] = {}
        """Of the clients, by socket."""
        self._routes = wiring.routes
        self._num_refused = 0
        self._rollout_links: dict[str, RolloutLink] = {}
        self._meters: dict[zmq.Socket[bytes], tuple[str, LinkMeter]] = {}
        """Connections to other hosts, by the socket with their news."""
        arena = codec.arena
        self._shared: SharedReceiver | None = None
        if arena is not None and (inbox := arena.rings.inbox(roles or (address,))) is not None:
            self._shared = SharedReceiver(inbox, codec, sections)
        self._links: ReliableLinks | None = None
        if wiring.keyring is not None:
            self._links = ReliableLinks(codec, is_coordinator=COORDINATOR in (roles or (address,)))
        learners = [index_of(role) for role in roles or (address,) if role_of(role) == "learner"]
        self._learner = learners[0] if learners else -1
        self._out = Outgoing(InFlightWeights(codec.weights_frame_bytes), self._seals)
        self._poll = sections.timed(WAITING, self._poller.poll)
        self._look = sections.timed(RECEIVING, self._poller.poll)
        self._take = sections.timed(RECEIVING, self._take_next)
        try:
            self._open(wiring)
            for doorbell in self._shared.fds if self._shared else ():
                self.watch(doorbell)
        except BaseException:
            self.close(linger_ms=0)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self, linger_ms: int = LINGER_MS) -> None:
        """Closes everything; sent messages are flushed for at most `linger_ms`."""
        for _, meter in self._meters.values():
            meter.close()
        self._out.close(linger_ms)
        if self._authenticator is not None:
            self._authenticator.stop()
        self._context.term()

    @property
    def num_refused(self) -> int:
        """Number of frames and slots that were refused."""
        return self._num_refused + (self._shared.num_refused if self._shared else 0)

    def watch(self, fd: int) -> None:
        """Makes `receive` also return when this descriptor can be read."""
        self._poller.register(fd, zmq.POLLIN)

    def unwatch(self, fd: int) -> None:
        self._poller.unregister(fd)

    def watch_writable(self, fds: set[int]) -> None:
        """Makes `receive` also return when one of these descriptors, not the previous ones, can be
        written."""
        for fd in self._writable - fds:
            self._poller.unregister(fd)
        for fd in fds - self._writable:
            self._poller.register(fd, zmq.POLLOUT)
        self._writable = fds

    def send(self, to: str, message: AnyMessage) -> bool:
        """Sends without ever blocking.

        Returns:
            False if there is no connection to `to` (never connected, or gone), or if too many
            weights are queued for it; the next ones supersede these.
        """
        peer = self._routes.get(to, to)
        is_near = peer in self._neighbours
        if is_near and type(message) is RolloutArrived and self._codec.post(message, to):
            return True
        links = None if is_near else self._links
        if links is not None and links.put(message, to, peer):
            links.tend(self._out.hand_over)
            return True
        frames = self._encode(message, to, peer, is_near=is_near)
        if isinstance(message, WeightsArrived):
            return self._out.send_weights(peer + LATEST, frames)
        connection = peer
        if isinstance(message, WeightsRequested) and peer + LATEST in self._out.clients:
            connection = peer + LATEST
        is_repeated = isinstance(message, REPEATED)
        is_sent = self._out.hand_over(connection, frames, is_repeated=is_repeated)
        return is_sent or self._give_up(frames)

    def _encode(self, message: AnyMessage, to: str, peer: str, *, is_near: bool) -> list[Buffer]:
        encode = partial(
            self._codec.encode, message, to, shares_memory=is_near, learner=self._learner
        )
        if is_near or type(message) is not RolloutArrived or peer not in self._rollout_links:
            return encode()
        return self._rollout_links[peer].encode(lambda packs: encode(packs=packs))

    def _give_up(self, frames: list[Buffer]) -> bool:
        self._codec.free(frames)
        return False

    def receive(self, timeout_s: float | None) -> Iterator[tuple[str, AnyMessage | WireError]]:
        """Waits for messages and yields those that arrived, each with the role that it is for.

        A frame that must not be decoded is yielded as a `WireError` that names its sender, so that
        it gets reported.

        Args:
            timeout_s: Longest wait; None waits for ever, 0 does not wait.
        """
        if self._out.holds:
            self._out.release()
            timeout_s = RETRY_S if timeout_s is None else min(timeout_s, RETRY_S)
        if self._links is not None:
            timeout_s = self._links.tend(self._out.hand_over, timeout_s)
        timeout_ms = None if timeout_s is None else max(0, math.ceil(timeout_s * 1000))
        shared = self._shared
        if shared is None:
            yield from self._receive_frames(timeout_ms)
            return
        yield from shared.take(may_wait=timeout_ms != 0)
        if shared.comes_first:
            return
        sleeps = timeout_ms != 0 and shared.fall_asleep()
        yield from self._receive_frames(timeout_ms if sleeps else 0)
        if sleeps:
            shared.wake_up()

    def _receive_frames(
        self, timeout_ms: int | None
    ) -> Iterator[tuple[str, AnyMessage | WireError]]:
        look = self._poll if timeout_ms != 0 else self._look  # a busy process does not wait
        for socket, _ in look(timeout_ms):
            if isinstance(socket, int):
                continue
            if socket in self._meters:
                connection, meter = self._meters[socket]
                if meter.heed():
                    self._out.announce(connection)
                continue
            for _ in range(MAX_TAKEN):
                if (taken := self._take(socket)) is None:
                    break
                if self._shared is not None:
                    yield from self._shared.take_sent_before(taken[1])
                yield taken

    def _take_next(self, socket: zmq.Socket[bytes]) -> tuple[str, AnyMessage | WireError] | None:
        """The next message for a role; None if there is none."""
        try:
            while True:
                taken = self._decode(socket, socket.recv_multipart(zmq.DONTWAIT, copy=False))
                if taken is not None:
                    return taken
        except zmq.Again:
            return None

    def _decode(
        self, socket: zmq.Socket[bytes], parts: list[zmq.Frame]
    ) -> tuple[str, AnyMessage | WireError] | None:
        way = b""
        if socket is self._out.server:
            way, parts = parts[0].bytes, parts[1:]
            sender = way.decode("ascii", "replace")
            if self._out.learns_ways:
                sender = str(parts[-1].get("User-Id")) if parts else ""
        else:
            sender = self._peers[socket]
        try:
            frames = self._open_message(sender, way, [part.buffer for part in parts])
            if way and frames == list(HERE):
                return None
            message = self._codec.decode(frames)
            if self._links is not None and not self._links.enter(sender, frames[0], message):
                return None
            return header.destination_of(frames[0]), message
        except WireError as error:
            self._num_refused += 1
            return "", WireError(error.what, where=f"frame from {sender.removesuffix(LATEST)}")

    def _open_message(self, sender: str, way: bytes, parts: list[Buffer]) -> list[Buffer]:
        """The frames of a message, opened if it is sealed. By its way, its sender is answered."""
        if way and not self._out.learns_ways:
            return parts
        if self._seals is None or not (way or sender in self._out.own):
            return parts
        said = self._seals.said_in(parts, sender) if way else b""
        connection = said or self._out.own[sender]
        frames = self._seals.open(sender.removesuffix(LATEST), connection, parts)
        if way:
            self._out.ways[sender] = Way(way, connection)
        return frames

    def _open(self, wiring: Wiring) -> None:
        factory = self.factory(
            self.address, self._codec.max_frame_bytes, self._context, self._seals
        )
        self._authenticator = factory.start_authenticator(wiring.bind)
        self._out.learns_ways = self._authenticator is not None
        if wiring.bind:
            self._out.server = factory.bind(wiring.bind, wiring.listener)
            self._poller.register(self._out.server, zmq.POLLIN)
        for link in wiring.links:
            client = factory.client(link)
            name = link.peer + LATEST * link.latest_only
            self._out.clients[name], self._peers[client] = client, name
            if self._seals is not None and link.endpoint.startswith("tcp:"):
                self._out.own[name] = self._seals.connection(factory.name_of(link))
                meter = LinkMeter(client)
                self._meters[meter.monitor] = (name, meter)
                self._poller.register(meter.monitor, zmq.POLLIN)
                if wiring.compression != "off" and not link.latest_only:
                    self._rollout_links[link.peer] = RolloutLink(
                        link.peer, meter, wiring.compression
                    )
            client.connect(link.endpoint)
            self._poller.register(client, zmq.POLLIN)
