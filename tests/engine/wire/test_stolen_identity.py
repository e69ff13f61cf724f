"""A member of a run, taken over, cannot get the messages of another member."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import zmq

from engine.errors import WireError
from engine.messages import Joined
from engine.wire.keys import Keyring, make_keyrings
from engine.wire.socket_factory import LATEST
from engine.wire.sockets import Sockets, Wiring
from tests.helpers.engine.socket_kit import HELLO, link, make_codec, receive, tcp_server, wear

NAMES = ["buffer-0", "actor-0", "actor-1"]


@contextmanager
def thief(keyring: Keyring, endpoint: str, identity: str) -> Iterator[zmq.Socket[bytes]]:
    """A member with its own, valid key that calls itself something else."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.set(zmq.LINGER, 0)
        wear(socket, "actor-1", keyring)
        socket.set(zmq.IDENTITY, identity.encode())
        socket.connect(endpoint)
        yield socket


def refusal(server: Sockets) -> WireError:
    _, found = receive(server)
    assert isinstance(found, WireError)
    return found


@pytest.mark.parametrize("identity", ["actor-0", "actor-0#", "actor-0#guess", f"actor-0{LATEST}"])
def test_a_name_that_others_know_takes_no_messages(identity: str) -> None:
    keyrings = make_keyrings(NAMES)
    with tcp_server(keyrings["buffer-0"]) as (server, endpoint, codec):
        wiring = Wiring(links=(link("buffer-0", endpoint),), keyring=keyrings["actor-0"])
        with (
            Sockets("actor-0", wiring, make_codec()) as owner,
            thief(keyrings["actor-1"], endpoint, identity) as stolen,
        ):
            assert owner.send("buffer-0", HELLO)
            assert receive(server) == ("buffer-0", HELLO)
            stolen.send(b"anything")
            assert "admitted as another member" in refusal(server).what
            for _ in range(5):
                assert server.send("actor-0", HELLO)
                assert receive(owner) == ("actor-0", HELLO)
            assert not stolen.poll(100)
        assert codec.num_decoded == 1, "nothing of the thief was decoded"


def test_a_thief_who_is_there_first_gets_nothing_either() -> None:
    keyrings = make_keyrings(NAMES)
    with (
        tcp_server(keyrings["buffer-0"]) as (server, endpoint, _),
        thief(keyrings["actor-1"], endpoint, "actor-0") as stolen,
    ):
        stolen.send(b"anything")
        assert "admitted as another member" in refusal(server).what
        assert not server.send("actor-0", HELLO), "the owner was never heard of"
        wiring = Wiring(links=(link("buffer-0", endpoint),), keyring=keyrings["actor-0"])
        with Sockets("actor-0", wiring, make_codec()) as owner:
            assert owner.send("buffer-0", HELLO)
            assert receive(server) == ("buffer-0", HELLO)
            assert server.send("actor-0", HELLO)
            assert receive(owner) == ("actor-0", HELLO)
        assert not stolen.poll(100)


def test_a_role_that_is_started_again_is_reached_in_its_new_life() -> None:
    keyrings = make_keyrings(NAMES)
    with tcp_server(keyrings["buffer-0"]) as (server, endpoint, _):
        wiring = Wiring(links=(link("buffer-0", endpoint),), keyring=keyrings["actor-0"])
        for life in range(3):
            with Sockets("actor-0", wiring, make_codec()) as owner:
                message = Joined(address="actor-0", host="box", pid=life, protocol=1)
                assert owner.send("buffer-0", message)
                assert receive(server) == ("buffer-0", message)
                assert server.send("actor-0", message)
                assert receive(owner) == ("actor-0", message)
