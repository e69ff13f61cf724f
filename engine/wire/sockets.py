"""ZeroMQ sockets of one process: one server socket, and client sockets to the servers of others.

A process can play several roles, so a frame says which of them it is for, and a process knows
which process plays each role that it talks to.

A process that others ask something of binds one ROUTER; whoever wants something connects a DEALER
to it. All flows are bounded by the protocol above (tickets, batch requests), so high-water marks
are only a second fence. Weights come in through a CONFLATE socket: the I/O thread keeps the latest
and forgets older ones, so an actor that is busy collecting never queues weights.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from typing import Self

import msgspec
import zmq
from zmq.auth.thread import ThreadAuthenticator

from engine.errors import PreflightError, WireError
from engine.messages import AnyMessage, WeightsArrived, WeightsRequested
from engine.sections import OFF, RECEIVING, WAITING, Sections
from engine.wire import header
from engine.wire.codec import Codec
from engine.wire.header import Buffer
from engine.wire.keys import Keyring

HIGH_WATER_MARK = 1024
MAX_WAITING_BYTES = 64 * 2**20
"""Weights that may wait for one actor. Its link can be slow; beyond this it misses versions, which
newer ones supersede, and asks again if it needs one."""
MIN_SEND_MARK = 4
HEARTBEAT_MS = 2_000
HEARTBEAT_TIMEOUT_MS = 10_000
LINGER_MS = 2_000


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """A connection that a process opens: to whom, where, and whether only the latest counts.

    A connection for the latest only carries weights and requests for them, nothing else; a process
    that has more to say to the same peer opens a second one.
    """

    peer: str
    endpoint: str
    latest_only: bool = False


class Wiring(msgspec.Struct, frozen=True, kw_only=True):
    """All that a process needs to reach the others.

    Attributes:
        bind: Endpoint of its own server socket; empty if nobody connects to it.
        links: The servers that it connects to.
        routes: The process that plays each role, where the names differ.
        keyring: Needed as soon as one endpoint is TCP.
        neighbours: Other processes of the same host, which share memory with this one.
    """

    bind: str = ""
    links: tuple[Link, ...] = ()
    routes: dict[str, str] = {}
    keyring: Keyring | None = None
    neighbours: frozenset[str] = frozenset()


_LATEST = "~latest"
"""Ends the identity of a connection that keeps only the latest."""


class Sockets:
    """Sends and receives messages by address. Use as a context manager, in one thread.

    Args:
        address: This process's own address; its peers see it as the sender.
        wiring: What to bind and where to connect.
        codec: Frames to messages and back.
        sections: Where waiting and receiving are counted.

    Raises:
        PreflightError: The endpoint to bind is taken.
    """

    def __init__(
        self, address: str, wiring: Wiring, codec: Codec, sections: Sections = OFF
    ) -> None:
        self.address = address
        self._codec = codec
        self._keyring = wiring.keyring
        self._neighbours = wiring.neighbours
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(1)
        self._authenticator: ThreadAuthenticator | None = None
        self._poller = zmq.Poller()
        self._poll = sections.timed(WAITING, self._poller.poll)
        self._take = sections.timed(RECEIVING, self._take_next)
        self._clients: dict[str, zmq.Socket[bytes]] = {}
        self._routes = wiring.routes
        self._server: zmq.Socket[bytes] | None = None
        self.num_refused = 0
        try:
            self._open(wiring)
        except BaseException:
            self.close(linger_ms=0)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self, linger_ms: int = LINGER_MS) -> None:
        """Closes everything; what was sent is flushed for at most `linger_ms`."""
        for socket in (*self._clients.values(), self._server):
            if socket is not None:
                socket.close(linger_ms)
        if self._authenticator is not None:
            self._authenticator.stop()
        self._context.term()

    def watch(self, fd: int) -> None:
        """Makes `receive` return also when this descriptor can be read."""
        self._poller.register(fd, zmq.POLLIN)

    def unwatch(self, fd: int) -> None:
        self._poller.unregister(fd)

    def send(self, to: str, message: AnyMessage) -> bool:
        """Sends without ever blocking.

        Returns:
            False if there is no way to `to` (never connected, or gone), or if a weights message
            found the way full; the next weights supersede it.
        """
        peer = self._routes.get(to, to)
        frames = self._codec.encode(message, to, shares_memory=peer in self._neighbours)
        client = self._clients.get(peer)
        if isinstance(message, WeightsRequested):
            client = self._clients.get(peer + _LATEST, client)
        elif isinstance(message, WeightsArrived):
            peer += _LATEST
        try:
            if client is not None:
                client.send_multipart(frames, zmq.DONTWAIT, copy=False)
                return True
            if self._server is None:
                return self._give_up(frames)
            self._server.send_multipart([peer.encode(), *frames], zmq.DONTWAIT, copy=False)
            return True
        except zmq.Again as error:
            if isinstance(message, WeightsArrived):
                return self._give_up(frames)
            raise WireError(f"the way to {to} is full, which the protocol excludes") from error
        except zmq.ZMQError as error:
            if error.errno == zmq.EHOSTUNREACH:
                return self._give_up(frames)
            raise

    def _give_up(self, frames: list[Buffer]) -> bool:
        self._codec.free(frames)
        return False

    def receive(self, timeout_s: float | None) -> Iterator[tuple[str, AnyMessage | WireError]]:
        """Waits for messages and yields all that are there, each with the role that it is for.

        A frame that must not be decoded is yielded as a `WireError` that names its sender, so that
        it gets reported.

        Args:
            timeout_s: Longest wait; None waits for ever, 0 does not wait.
        """
        timeout_ms = None if timeout_s is None else max(0, math.ceil(timeout_s * 1000))
        for socket, _ in self._poll(timeout_ms):
            if isinstance(socket, int):
                continue
            while (taken := self._take(socket)) is not None:
                yield taken

    def _take_next(self, socket: zmq.Socket[bytes]) -> tuple[str, AnyMessage | WireError] | None:
        try:
            return self._decode(socket, socket.recv_multipart(zmq.DONTWAIT, copy=False))
        except zmq.Again:
            return None

    def _decode(
        self, socket: zmq.Socket[bytes], parts: list[zmq.Frame]
    ) -> tuple[str, AnyMessage | WireError]:
        if socket is self._server:
            sender, parts = parts[0].bytes.decode("ascii", "replace"), parts[1:]
            member = sender.removesuffix(_LATEST)
            if self._authenticator is not None and not self._is_member(member, parts[-1:]):
                self.num_refused += 1
                return "", WireError("its key belongs to another member", where=member)
        else:
            sender = next(peer for peer, client in self._clients.items() if client is socket)
        try:
            frames = [part.buffer for part in parts]
            message = self._codec.decode(frames)
            return header.destination_of(frames[0]), message
        except WireError as error:
            self.num_refused += 1
            return "", WireError(error.what, where=f"frame from {sender.removesuffix(_LATEST)}")

    def _is_member(self, sender: str, frames: list[zmq.Frame]) -> bool:
        """Whether the connection's key is the one that the run gave to this address."""
        assert self._keyring is not None
        return bool(frames) and self._keyring.members.get(sender) == frames[0].get("User-Id")

    def _open(self, wiring: Wiring) -> None:
        self._authenticator = self._start_authenticator(wiring)
        if wiring.bind:
            self._server = self._bind(wiring.bind)
        for link in wiring.links:
            self._clients[link.peer + _LATEST * link.latest_only] = self._connect(link)

    def _bind(self, endpoint: str) -> zmq.Socket[bytes]:
        socket = self._socket(zmq.ROUTER)
        waiting = MAX_WAITING_BYTES // self._codec.weights_frame_bytes
        socket.set(zmq.SNDHWM, max(MIN_SEND_MARK, min(HIGH_WATER_MARK, waiting)))
        socket.set(zmq.ROUTER_MANDATORY, 1)
        socket.set(zmq.ROUTER_HANDOVER, 1)
        if endpoint.startswith("tcp:"):
            keyring = self._require_keyring(endpoint)
            socket.set(zmq.CURVE_SERVER, 1)
            socket.set(zmq.CURVE_SECRETKEY, keyring.own.secret.encode())
            socket.set(zmq.ZAP_DOMAIN, b"tianji")
        try:
            socket.bind(endpoint)
        except zmq.ZMQError as error:
            socket.close()
            raise PreflightError(
                f"{self.address} cannot listen: {os.strerror(error.errno or 0)}", where=endpoint
            ) from error
        self._poller.register(socket, zmq.POLLIN)
        return socket

    def _connect(self, link: Link) -> zmq.Socket[bytes]:
        socket = self._socket(zmq.DEALER)
        socket.set(zmq.IDENTITY, (self.address + _LATEST * link.latest_only).encode())
        if link.latest_only:
            socket.set(zmq.CONFLATE, 1)
        if link.endpoint.startswith("tcp:"):
            keyring = self._require_keyring(link.endpoint)
            socket.set(zmq.CURVE_PUBLICKEY, keyring.own.public.encode())
            socket.set(zmq.CURVE_SECRETKEY, keyring.own.secret.encode())
            socket.set(zmq.CURVE_SERVERKEY, keyring.members[link.peer].encode())
        socket.connect(link.endpoint)
        self._poller.register(socket, zmq.POLLIN)
        return socket

    def _socket(self, kind: int) -> zmq.Socket[bytes]:
        """Options bind only to later bind and connect calls, so all are set here, first."""
        socket = self._context.socket(kind)
        socket.set(zmq.LINGER, LINGER_MS)
        socket.set(zmq.SNDHWM, HIGH_WATER_MARK)
        socket.set(zmq.RCVHWM, HIGH_WATER_MARK)
        socket.set(zmq.MAXMSGSIZE, self._codec.max_frame_bytes)
        socket.set(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
        socket.set(zmq.HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT_MS)
        return socket

    def _require_keyring(self, endpoint: str) -> Keyring:
        if self._keyring is None:
            raise WireError("a TCP socket without keys is never opened", where=endpoint)
        return self._keyring

    def _start_authenticator(self, wiring: Wiring) -> ThreadAuthenticator | None:
        if not wiring.bind.startswith("tcp:"):
            return None
        keyring = self._require_keyring(wiring.bind)
        authenticator = ThreadAuthenticator(self._context)
        authenticator.start()
        authenticator.configure_curve_callback("tianji", _AllowList(keyring))
        return authenticator


class _AllowList:
    """ZAP's question, answered: is this public key a member of the run?"""

    def __init__(self, keyring: Keyring) -> None:
        self._members = {key.encode() for key in keyring.members.values()}

    def callback(self, domain: str, key: bytes) -> bool:
        """`key` is Z85 text, as in the keyring."""
        return key in self._members
