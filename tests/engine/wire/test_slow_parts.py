"""Frames that take longer than heartbeats are waited for arrive over a slow link all the same."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import numpy as np
import pytest
import zmq

from engine.messages import RolloutArrived, WeightsArrived, WeightsRequested
from engine.rollout import Field, Layout, Rollout
from engine.testing import make_rollout, make_weights
from engine.wire.codec import Codec, WeightsLayout
from engine.wire.keys import make_keyrings
from engine.wire.socket_factory import SocketFactory
from engine.wire.sockets import Sockets, Wiring
from tests.helpers.engine.socket_kit import link, receive

NUM_BYTES = 4 * 2**20
BYTES_S = 4 * 2**20
LAYOUT = Layout((Field("observation", "uint8", (NUM_BYTES // 2,), 1),), 1, 1)


class HastySockets(Sockets):
    """Wait for a heartbeat for half as long as a frame takes."""

    class factory(SocketFactory):
        heartbeat_ms = 100
        heartbeat_timeout_ms = 500


@contextmanager
def slow_way_to(port: int) -> Iterator[int]:
    """A port from which connections go on to that one, with `BYTES_S` in each direction."""
    ends: list[socket.socket] = []

    def pass_on(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(2**16):
                time.sleep(len(data) / BYTES_S)
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def accept(server: socket.socket) -> None:
        with suppress(OSError):
            while True:
                near, far = server.accept()[0], socket.create_connection(("127.0.0.1", port))
                ends.extend((near, far))
                for way in ((near, far), (far, near)):
                    threading.Thread(target=pass_on, args=way, daemon=True).start()

    server = socket.create_server(("127.0.0.1", 0))
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
    accepting = threading.Thread(target=accept, args=(server,), daemon=True)
    accepting.start()
    try:
        yield server.getsockname()[1]
    finally:
        server.shutdown(socket.SHUT_RDWR)
        accepting.join()
        for end in (server, *ends):
            end.close()


@contextmanager
def ends(*, latest_only: bool) -> Iterator[tuple[Sockets, Sockets]]:
    """A server, and a client whose only way to it is slow."""
    keys = make_keyrings(["learner-0", "actor-0"])
    codec = Codec(LAYOUT, WeightsLayout(NUM_BYTES, 7))
    wiring = Wiring(bind="tcp://127.0.0.1:*", keyring=keys["learner-0"])
    with HastySockets("learner-0", wiring, codec) as server:
        assert server._out.server is not None
        endpoint = server._out.server.get_string(zmq.LAST_ENDPOINT)
        with slow_way_to(int(endpoint.rpartition(":")[2])) as port:
            to_server = link("learner-0", f"tcp://127.0.0.1:{port}", latest_only=latest_only)
            wiring = Wiring(links=(to_server,), keyring=keys["actor-0"])
            with HastySockets("actor-0", wiring, codec) as client:
                yield server, client


def test_a_rollout_comes_in_parts():
    rollout = Rollout(make_rollout(layout=LAYOUT).info, LAYOUT.allocate())
    rollout.buffer[:] = np.arange(NUM_BYTES, dtype=np.uint32).astype(np.uint8)
    with ends(latest_only=False) as (server, client):
        assert client.send("learner-0", RolloutArrived(rollout, 0))
        _, message = receive(server)
        assert isinstance(message, RolloutArrived)
        assert np.array_equal(message.rollout.buffer, rollout.buffer)


def test_weights_in_one_part_are_waited_for():
    with ends(latest_only=True) as (server, client):
        client.send("learner-0", WeightsRequested(actor="actor-0", held_version=-1))
        receive(server)
        assert server.send("actor-0", WeightsArrived(make_weights(1, NUM_BYTES)))
        _, message = receive(client)
        assert isinstance(message, WeightsArrived)


@pytest.mark.parametrize("size", [2**20, 2**20 + 1])
def test_the_limit_of_a_part_is_a_segment(size: int):
    with zmq.Context() as context:
        factory = SocketFactory("actor-0", size, context, None)
        socket_ = factory._socket(zmq.PULL, "tcp://127.0.0.1:1")
        assert socket_.get(zmq.MAXMSGSIZE) <= 2**20 + 64
        socket_.close(0)
