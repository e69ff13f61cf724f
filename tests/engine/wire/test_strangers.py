"""Whoever connects without the run's keys, and whatever it says: nothing of it is decoded.

Real TCP sockets. Each stranger is first seen to have been turned away (its connection is closed),
or to hang on; then a member still gets through, and its message is all that was ever decoded.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit

import psutil
import pytest
import zmq
from zmq.utils.monitor import recv_monitor_message

from engine.wire import socket_factory
from engine.wire.keys import make_keyrings
from engine.wire.socket_factory import SEAL_BYTES
from engine.wire.sockets import Sockets, Wiring
from tests.helpers.engine.hostile_words import WORDS, greeting, is_closed
from tests.helpers.engine.socket_kit import (
    HELLO,
    PATIENCE_S,
    CountingCodec,
    link,
    make_codec,
    receive,
    tcp_server,
    wear,
)


@contextmanager
def besieged() -> Iterator[tuple[tuple[str, int], CountingCodec]]:
    """A server's address; at the end a member must get through, and be the only one decoded."""
    keyrings = make_keyrings(["buffer-0", "actor-0"])
    with tcp_server(keyrings["buffer-0"]) as (server, endpoint, codec):
        parts = urlsplit(endpoint)
        assert parts.hostname is not None
        assert parts.port is not None
        yield (parts.hostname, parts.port), codec
        assert list(server.receive(0.0)) == []
        wiring = Wiring(links=(link("buffer-0", endpoint),), keyring=keyrings["actor-0"])
        with Sockets("actor-0", wiring, make_codec()) as member:
            assert member.send("buffer-0", HELLO)
            assert receive(server) == ("buffer-0", HELLO)
        assert codec.num_decoded == 1
        assert server.num_refused == 0, "nothing of a stranger is even a frame"


@pytest.mark.parametrize("words", WORDS.values(), ids=WORDS.keys())
def test_a_stranger_is_hung_up_on_and_nothing_of_it_is_decoded(
    words: bytes, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(socket_factory, "HANDSHAKE_MS", 1000)  # a wrong password waits for it
    before = psutil.Process().memory_info().rss
    with besieged() as (address, _), socket.create_connection(address, PATIENCE_S) as stranger:
        stranger.sendall(words)
        assert is_closed(stranger)
    assert psutil.Process().memory_info().rss - before < 64 * 2**20


def test_strangers_that_hang_on_keep_nobody_out():
    """Connections that never finish their greeting, one of them sending it byte by byte."""
    with besieged() as (address, codec), ExitStack() as held:
        strangers = [
            held.enter_context(socket.create_connection(address, PATIENCE_S)) for _ in range(100)
        ]
        for number, stranger in enumerate(strangers):
            stranger.sendall(greeting(b"PLAIN")[: number % 60])
        for byte in greeting(b"PLAIN")[:-1]:
            strangers[0].sendall(bytes([byte]))
        assert all(stranger.fileno() >= 0 for stranger in strangers)
        assert codec.num_decoded == 0


def test_who_does_not_finish_its_greeting_is_hung_up_on_in_the_end():
    """The limit is ZeroMQ's own; here it is shortened so that it can be seen."""
    keyrings = make_keyrings(["buffer-0"])
    with tcp_server(keyrings["buffer-0"]) as (server, _, codec):
        assert server._out.server is not None
        assert 0 < server._out.server.get(zmq.HANDSHAKE_IVL) <= 30_000
        server._out.server.set(zmq.HANDSHAKE_IVL, 200)
        server._out.server.bind("tcp://127.0.0.1:*")  # options hold for later binds
        parts = urlsplit(server._out.server.get_string(zmq.LAST_ENDPOINT))
        with socket.create_connection((parts.hostname, parts.port), PATIENCE_S) as stranger:
            stranger.sendall(greeting(b"PLAIN")[:30])
            assert is_closed(stranger)
        assert codec.num_decoded == 0


def test_a_member_that_sends_too_much_is_hung_up_on_and_others_are_served():
    """More than the largest frame of the run and its encryption: refused before it is read."""
    keyrings = make_keyrings(["buffer-0", "actor-0", "actor-1"])
    with tcp_server(keyrings["buffer-0"]) as (server, endpoint, codec):
        with zmq.Context() as context, context.socket(zmq.DEALER) as client:
            client.set(zmq.LINGER, 0)
            client.set(zmq.RECONNECT_IVL, -1)
            wear(client, "actor-1", keyrings["actor-1"])
            with client.get_monitor_socket(
                zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED
            ) as monitor:
                client.connect(endpoint)
                made = recv_monitor_message(monitor)["event"]
                assert made == zmq.EVENT_HANDSHAKE_SUCCEEDED
                client.send(b"\0" * (codec.max_frame_bytes + SEAL_BYTES + 1))
                assert monitor.poll(int(PATIENCE_S * 1000)), "it was never hung up on"
                client.disable_monitor()
        other = Wiring(links=(link("buffer-0", endpoint),), keyring=keyrings["actor-0"])
        with Sockets("actor-0", other, make_codec()) as peer:
            assert peer.send("buffer-0", HELLO)
            assert receive(server) == ("buffer-0", HELLO)
        assert codec.num_decoded == 1
