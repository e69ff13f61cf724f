"""A port is had by listening on it: whoever shares a range of ports takes the next one."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from engine.errors import PreflightError
from engine.host.endpoints import Endpoints
from engine.host.ports import listen_on
from engine.messages import Start
from engine.wire.keys import make_keyrings
from engine.wire.socket_factory import Link
from engine.wire.sockets import Sockets, Wiring
from tests.helpers.engine.socket_kit import PATIENCE_S, make_codec
from tests.helpers.ports import find_free_ports
from tests.helpers.running import no_new_descriptor

RANGE = range(42000, 42200)
HERE = "127.0.0.1"
NUM_RUNS = 8
NUM_PORTS = 5


def test_those_who_look_at_the_same_time_take_different_ports() -> None:
    barrier, runs = Barrier(NUM_RUNS), [Endpoints() for _ in range(NUM_RUNS)]

    def reserve(endpoints: Endpoints) -> list[str]:
        barrier.wait()
        return endpoints.reserve(NUM_PORTS, (HERE, RANGE.start, RANGE.stop))

    try:
        with ThreadPoolExecutor(max_workers=NUM_RUNS) as pool:
            found = [name for names in pool.map(reserve, runs) for name in names]
    finally:
        for endpoints in runs:
            endpoints.release()
    assert len(set(found)) == NUM_RUNS * NUM_PORTS


def test_a_port_that_was_taken_is_nobody_elses_until_it_is_released() -> None:
    (listener,) = listen_on(HERE, RANGE, 1)
    port = listener.getsockname()[1]
    with listener:
        assert port not in find_free_ports(HERE, RANGE, 3)
        with socket.create_connection((HERE, port), PATIENCE_S):
            pass  # who connects before the server is there waits for it


def test_too_few_ports_leave_none_open() -> None:
    (listener,) = listen_on(HERE, RANGE, 1)
    port = listener.getsockname()[1]
    refused = pytest.raises(PreflightError, match=r"3 ports, but of .* only [012] are free")
    with listener, no_new_descriptor(), refused:
        listen_on(HERE, range(port, port + 3), 3)


@pytest.mark.parametrize(
    ("ports", "words"),
    [(range(65530, 65540), "of 65530-65539"), (range(70000, 70010), "only 0 are free")],
)
def test_ports_that_do_not_exist_are_not_free(ports: range, words: str) -> None:
    with pytest.raises(PreflightError, match=words):
        listen_on(HERE, ports, 10)


def test_an_address_of_another_host_is_named() -> None:
    with pytest.raises(PreflightError, match="no network of this host has that address"):
        listen_on("192.0.2.1", RANGE, 1)


def with_server(lives: int, use: Callable[[Sockets, Sockets], None]) -> None:
    """A server on an inherited port, in several lives: what was reserved stays its own."""
    endpoints = Endpoints()
    (endpoint,) = endpoints.reserve(1, (HERE, RANGE.start, RANGE.stop))
    keys = make_keyrings(["coordinator", "actor-0"])
    link = Link(peer="coordinator", endpoint=endpoint)
    client = Wiring(links=(link,), keyring=keys["actor-0"])
    try:
        for _ in range(lives):
            own = os.dup(endpoints.listeners[endpoint])  # as a fork of the forkserver has it
            server = Wiring(bind=endpoint, listener=own, keyring=keys["coordinator"])
            with (
                Sockets("actor-0", client, make_codec()) as caller,
                Sockets("coordinator", server, make_codec()) as listening,
            ):
                use(listening, caller)
    finally:
        endpoints.release()


def test_a_server_takes_over_the_port_in_every_life() -> None:
    def use(server: Sockets, client: Sockets) -> None:
        client.send("coordinator", Start(origin_ns=7))
        received: list[object] = []
        while not received:
            received = [message for _, message in server.receive(PATIENCE_S)]
        assert received[0] == Start(origin_ns=7)

    with_server(3, use)
