"""Sockets of a run at IPv6 addresses."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from engine.errors import PreflightError
from engine.host.endpoints import Endpoints
from engine.host.ports import listen_on
from engine.wire.keys import make_keyrings
from engine.wire.sockets import Sockets, Wiring
from tests.helpers.engine.socket_kit import HELLO, link, make_codec, receive
from tests.helpers.ipv6 import needs_ipv6
from tests.helpers.ports import find_free_ports

pytestmark = needs_ipv6


def test_members_talk_at_an_ipv6_address() -> None:
    keyrings = make_keyrings(["buffer-0", "actor-0"])
    endpoints = Endpoints()
    (endpoint,) = endpoints.reserve(1, ("::1", 20000, 60000))
    assert endpoint.startswith("tcp://[::1]:")
    endpoints.release()
    at_home = Wiring(bind=endpoint, keyring=keyrings["buffer-0"])
    away = Wiring(links=(link("buffer-0", endpoint),), keyring=keyrings["actor-0"])
    with (
        Sockets("buffer-0", at_home, make_codec()) as server,
        Sockets("actor-0", away, make_codec()) as client,
    ):
        client.send("buffer-0", HELLO)
        assert receive(server) == ("buffer-0", HELLO)
        assert server.send("actor-0", HELLO)
        assert receive(client)[1] == HELLO


def scoped_address() -> str:
    """A link-local address with its network; such is how a cable without a router is used."""
    for line in Path("/proc/net/if_inet6").read_text().splitlines():
        digits, _, _, scope, _, name = line.split()
        if scope == "20":
            groups = ":".join(digits[at : at + 4] for at in range(0, 32, 4))
            return f"{groups}%{name}"
    return ""


def test_ports_of_a_scoped_address() -> None:
    address = scoped_address()
    if not address:
        pytest.skip("this machine has no link-local address")
    (port,) = find_free_ports(address, range(20000, 60000), 1)
    (listener,) = listen_on(address, range(port, port + 1), 1)
    with listener, socket.create_connection((address, port), 5):
        pass


@pytest.mark.parametrize("address", ["2001:db8::77", "fe80::1%nonet0"])
def test_an_address_of_no_network_here_is_named(address: str) -> None:
    with pytest.raises(PreflightError, match="no network of this host") as caught:
        listen_on(address, range(20000, 20010), 1)
    assert caught.value.where == address
