"""A server on a real socket that counts what it is asked to decode."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import zmq

from engine.errors import WireError
from engine.messages import AnyMessage, Joined
from engine.rollout import Field, Layout
from engine.wire.codec import Codec, WeightsLayout
from engine.wire.header import Buffer
from engine.wire.keys import Keyring
from engine.wire.socket_factory import LATEST, Link, seals_of
from engine.wire.sockets import Sockets, Wiring

LAYOUT = Layout((Field("reward", "float32"),), 4, 2)
PATIENCE_S = 20.0
HELLO = Joined(address="actor-0", host="box", pid=1, protocol=1)


class CountingCodec(Codec):
    """Knows how often it was asked to decode."""

    num_decoded = 0

    def decode(self, frames: Sequence[Buffer]) -> AnyMessage:
        self.num_decoded += 1
        return super().decode(frames)


def make_codec() -> CountingCodec:
    return CountingCodec(LAYOUT, WeightsLayout(16, 7))


def receive(sockets: Sockets) -> tuple[str, AnyMessage | WireError]:
    """The next message, and the role that it is for."""
    give_up_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < give_up_s:
        for item in sockets.receive(PATIENCE_S):
            return item  # it also returns for news of a connection
    raise AssertionError("nothing came")


def link(peer: str, endpoint: str, *, latest_only: bool = False) -> Link:
    return Link(peer=peer, endpoint=endpoint, latest_only=latest_only)


def wear(socket: zmq.Socket[bytes], name: str, keys: Keyring, server: str = "buffer-0") -> None:
    """Makes a raw socket say what a member would say to be admitted: the name of a connection."""
    socket.set(zmq.PLAIN_USERNAME, name.encode())
    socket.set(
        zmq.PLAIN_PASSWORD,
        seals_of(name.removesuffix(LATEST), keys).password(server, is_client=True).encode(),
    )


@contextmanager
def tcp_server(keyring: Keyring) -> Iterator[tuple[Sockets, str, CountingCodec]]:
    """A server on a free port of this host, its endpoint, and what counts its decoding."""
    codec = make_codec()
    wiring = Wiring(bind="tcp://127.0.0.1:*", keyring=keyring)
    with Sockets("buffer-0", wiring, codec) as server:
        assert server._out.server is not None
        endpoint = server._out.server.get_string(zmq.LAST_ENDPOINT)
        yield server, endpoint, codec
