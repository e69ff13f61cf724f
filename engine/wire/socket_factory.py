"""Opens the sockets of a process: their options, and admission over TCP.

A TCP socket admits only members of the run: each says a password that only it and the server can
derive from their keys. Whoever reads the network learns it, and then is heard, but not believed:
what counts is who has sealed a message (`engine.wire.sealing`).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection
from typing import TYPE_CHECKING

import msgspec
import zmq

from engine.errors import PreflightError, WireError
from engine.wire.frames import SEGMENT_BYTES, TAG_BYTES
from engine.wire.keys import Keyring

if TYPE_CHECKING:
    from zmq.auth.thread import ThreadAuthenticator

    from engine.wire.sealing import Seals


HIGH_WATER_MARK = 1024
"""Messages that may wait for one peer; the protocol never sends so many at once."""
HEARTBEAT_MS = 2_000
HEARTBEAT_TIMEOUT_MS = 10_000
LINGER_MS = 2_000
HANDSHAKE_MS = 5_000
"""How long a stranger can hold a connection without authenticating; a member reconnects."""
BACKLOG = 1_024
"""Connections that can wait to be accepted: all roles of a host connect at the same time."""
SEAL_BYTES = 64
"""More than a seal adds to a segment on the wire, to which the size limit applies."""
SLOWEST_BYTES_S = 2**19
"""Weights are one part, so on their connection heartbeats are waited for as if the link had 4
Mbit/s."""
LATEST = "~latest"
"""Ends the name of a connection that keeps only the latest."""
DOMAIN = "tianji"
"""Of admission (ZAP)."""


def seals_of(address: str, keyring: Keyring) -> Seals:
    """What seals the messages of this process to other hosts, and opens theirs."""
    from engine.wire.sealing import Seals  # reads `cryptography`: not for one host

    return Seals(address, keyring)


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """A connection that a process opens: its peer, endpoint, and whether only the latest counts.

    A connection for the latest carries only weights and requests for them; a process with other
    messages to the same peer opens a second one. `keeps_all`: of weights that were requested one by
    one, none replaces another, although they have this connection.
    """

    peer: str
    endpoint: str
    latest_only: bool = False
    keeps_all: bool = False


class SocketFactory:
    """Opens sockets.

    Args:
        address: This process's own; its peers see it as the sender.
        max_frame_bytes: A peer that sends a larger frame is disconnected before it is read.
        context: Of the sockets.
        seals: Needed as soon as one endpoint is TCP.

    Attributes:
        high_water_mark, heartbeat_ms, heartbeat_timeout_ms: Of its sockets.
    """

    high_water_mark = HIGH_WATER_MARK
    heartbeat_ms = HEARTBEAT_MS
    heartbeat_timeout_ms = HEARTBEAT_TIMEOUT_MS

    def __init__(
        self,
        address: str,
        max_frame_bytes: int,
        context: zmq.Context[zmq.Socket[bytes]],
        seals: Seals | None,
    ) -> None:
        self._address = address
        self._max_frame_bytes = max_frame_bytes
        self._context = context
        self._seals = seals

    def bind(
        self, endpoint: str, listener: int | None = None, kind: int = zmq.ROUTER
    ) -> zmq.Socket[bytes]:
        """The server socket.

        Args:
            endpoint: Where it listens.
            listener: A descriptor that already listens there; the socket closes it at its end.
            kind: Type of the socket.

        Raises:
            PreflightError: The endpoint is taken.
        """
        socket = self._socket(kind, endpoint)
        if kind == zmq.ROUTER:
            socket.set(zmq.ROUTER_MANDATORY, 1)
            socket.set(zmq.ROUTER_HANDOVER, 1)
        if endpoint.startswith("tcp:"):
            self._secure_server(socket, endpoint)
        if listener is not None:
            socket.set(zmq.USE_FD, listener)
        try:
            socket.bind(endpoint)
        except zmq.ZMQError as error:
            socket.close()
            raise PreflightError(
                f"{self._address} cannot listen: {os.strerror(error.errno or 0)}", where=endpoint
            ) from error
        return socket

    def connect(self, link: Link, kind: int = zmq.DEALER) -> zmq.Socket[bytes]:
        """A client socket of this type."""
        socket = self.client(link, kind)
        socket.connect(link.endpoint)
        return socket

    def client(self, link: Link, kind: int = zmq.DEALER) -> zmq.Socket[bytes]:
        """A client socket that has not connected yet."""
        socket = self._socket(kind, link.endpoint, is_one_part=link.latest_only)
        if link.latest_only and not link.keeps_all:
            socket.set(zmq.CONFLATE, 1)
        if link.endpoint.startswith("tcp:"):
            self._secure_client(socket, link)
        else:
            self._name_client(socket, link)
        return socket

    def name_of(self, link: Link) -> str:
        """Of a connection, at its server."""
        return self._address + LATEST * link.latest_only

    def _name_client(self, socket: zmq.Socket[bytes], link: Link) -> None:
        socket.set(zmq.IDENTITY, self.name_of(link).encode())

    def _socket(self, kind: int, endpoint: str, *, is_one_part: bool = False) -> zmq.Socket[bytes]:
        """Options bind only to later bind and connect calls, so all are set here, first."""
        socket = self._context.socket(kind)
        socket.set(zmq.LINGER, LINGER_MS)
        socket.set(zmq.SNDHWM, self.high_water_mark)
        socket.set(zmq.RCVHWM, self.high_water_mark)
        is_between_hosts = endpoint.startswith("tcp:")
        if "[" in endpoint:
            socket.set(zmq.IPV6, 1)
        part_bytes, patience_ms = self._max_frame_bytes, self.heartbeat_timeout_ms
        if is_between_hosts and is_one_part:
            patience_ms = max(patience_ms, part_bytes * 1000 // SLOWEST_BYTES_S)
            part_bytes += part_bytes // SEGMENT_BYTES * TAG_BYTES + SEAL_BYTES
        elif is_between_hosts:
            part_bytes = min(part_bytes, SEGMENT_BYTES) + SEAL_BYTES
        socket.set(zmq.MAXMSGSIZE, part_bytes)
        socket.set(zmq.BACKLOG, BACKLOG)
        if (
            is_between_hosts
        ):  # on one host the kernel reports deaths, and stalled peers are waited for
            socket.set(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
            socket.set(zmq.HEARTBEAT_IVL, self.heartbeat_ms)
            socket.set(zmq.HEARTBEAT_TIMEOUT, patience_ms)
        return socket

    def _secure_server(self, socket: zmq.Socket[bytes], endpoint: str) -> None:
        self._require_seals(endpoint)
        if socket.type == zmq.ROUTER:
            # Nobody can take the place of a connection: the socket gives each one an identity of
            # its own, which is learnt anew when its member has sealed something.
            socket.set(zmq.ROUTER_HANDOVER, 0)
        socket.set(zmq.PLAIN_SERVER, 1)
        socket.set(zmq.ZAP_DOMAIN, DOMAIN.encode())

    def _secure_client(self, socket: zmq.Socket[bytes], link: Link) -> None:
        password = self._require_seals(link.endpoint).password(link.peer, is_client=True)
        socket.set(zmq.PLAIN_USERNAME, self.name_of(link).encode())
        socket.set(zmq.PLAIN_PASSWORD, password.encode())

    def _require_seals(self, endpoint: str) -> Seals:
        if self._seals is None:
            raise WireError("refused to open a TCP socket without keys", where=endpoint)
        return self._seals

    def start_authenticator(
        self, endpoint: str, admitted: Collection[str] | None = None
    ) -> ThreadAuthenticator | None:
        """Admits members of the run to the socket, all or only these; None if no other process
        connects."""
        if not endpoint.startswith("tcp:"):
            return None
        from zmq.auth.thread import ThreadAuthenticator  # asyncio: not for one host

        seals = self._require_seals(endpoint)
        names = seals.members if admitted is None else admitted
        authenticator = ThreadAuthenticator(self._context, log=_silent())
        passwords = {name: seals.password(name, is_client=False) for name in names}
        latest = {name + LATEST: password for name, password in passwords.items()}
        authenticator.configure_plain(DOMAIN, passwords | latest)
        authenticator.start()
        return authenticator


def _silent() -> logging.Logger:
    """What the authenticator would log has passwords in it."""
    log = logging.Logger("tianji-admission")
    log.disabled = True
    return log
