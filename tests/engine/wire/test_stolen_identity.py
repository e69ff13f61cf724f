"""Whoever is admitted in the name of a member, or takes its place, gets none of its messages."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import zmq

from engine.errors import WireError
from engine.messages import Joined
from engine.wire.keys import Keyring, make_keyrings
from engine.wire.socket_factory import LATEST
from engine.wire.sockets import Sockets, Wiring
from tests.helpers.engine.socket_kit import (
    HELLO,
    PATIENCE_S,
    link,
    make_codec,
    receive,
    tcp_server,
    wear,
)

NAMES = ["buffer-0", "actor-0", "actor-1"]


@contextmanager
def thief(
    keyring: Keyring, endpoint: str, identity: str, name: str = "actor-1"
) -> Iterator[zmq.Socket[bytes]]:
    """A member with its own, valid key that calls itself something else; or, with the name of
    another one, who has listened to that one's password."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.set(zmq.LINGER, 0)
        wear(socket, name, keyring)
        socket.set(zmq.IDENTITY, identity.encode())
        socket.connect(endpoint)
        yield socket


def refusal(server: Sockets) -> WireError:
    _, found = receive(server)
    assert isinstance(found, WireError)
    return found


@pytest.mark.parametrize("identity", ["actor-0", "actor-0#", f"actor-0{LATEST}"])
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
            assert refusal(server).where == "frame from actor-1", "it is known by its password"
            for _ in range(5):
                assert server.send("actor-0", HELLO)
                assert receive(owner) == ("actor-0", HELLO)
            assert not stolen.poll(100)
        assert codec.num_decoded == 1, "nothing of the thief was decoded"


def test_who_has_listened_takes_no_place_while_it_says_nothing() -> None:
    """It knows the password and the identity that the server has given; both members go on."""
    keyrings = make_keyrings(NAMES)
    with tcp_server(keyrings["buffer-0"]) as (server, endpoint, _):
        wiring = Wiring(links=(link("buffer-0", endpoint),), keyring=keyrings["actor-0"])
        with Sockets("actor-0", wiring, make_codec()) as owner:
            assert owner.send("buffer-0", HELLO)
            assert receive(server) == ("buffer-0", HELLO)
            known = owner._out.clients["buffer-0"].get_string(zmq.IDENTITY)
            given = server._out.ways["actor-0"].identity.decode("latin-1")
            for identity in filter(None, (known, given)):
                with thief(keyrings["actor-0"], endpoint, identity, "actor-0") as stolen:
                    assert not stolen.poll(200)
                    for _ in range(5):
                        assert owner.send("buffer-0", HELLO)
                        assert receive(server) == ("buffer-0", HELLO)
                        assert server.send("actor-0", HELLO)
                        assert receive(owner) == ("actor-0", HELLO)
                    assert not stolen.poll(100)


def test_what_a_reader_is_faster_with_is_mended_by_the_next_message() -> None:
    """A sealed message that has not arrived yet is believed by whatever connection it comes."""
    keyrings = make_keyrings(NAMES)
    with tcp_server(keyrings["buffer-0"]) as (server, endpoint, _):
        wiring = Wiring(links=(link("buffer-0", endpoint),), keyring=keyrings["actor-0"])
        with Sockets("actor-0", wiring, make_codec()) as owner:
            seals, own = owner._seals, owner._out.own["buffer-0"]
            assert seals is not None
            heard = seals.seal("buffer-0", own, make_codec().encode(HELLO, "buffer-0"))
            with thief(keyrings["actor-0"], endpoint, "any", "actor-0") as stolen:
                stolen.send_multipart(heard)
                assert receive(server) == ("buffer-0", HELLO)
                assert owner.send("buffer-0", HELLO)
                assert receive(server) == ("buffer-0", HELLO)
                assert server.send("actor-0", HELLO)
                assert receive(owner) == ("actor-0", HELLO)


def test_a_thief_who_is_there_first_gets_nothing_either() -> None:
    keyrings = make_keyrings(NAMES)
    with (
        tcp_server(keyrings["buffer-0"]) as (server, endpoint, _),
        thief(keyrings["actor-1"], endpoint, "actor-0") as stolen,
    ):
        stolen.send(b"anything")
        assert refusal(server).where == "frame from actor-1"
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


@pytest.mark.parametrize("latest_only", [False, True])
def test_a_connection_that_is_made_again_is_answered_without_a_new_message(
    latest_only: bool,
) -> None:
    """As an evaluator's, which asks for weights once."""
    keyrings = make_keyrings(NAMES)
    with tcp_server(keyrings["buffer-0"]) as (server, endpoint, _):
        to_server = link("buffer-0", endpoint, latest_only=latest_only)
        wiring = Wiring(links=(to_server,), keyring=keyrings["actor-0"])
        with Sockets("actor-0", wiring, make_codec()) as owner:
            name = "actor-0" + LATEST * latest_only
            connection = "buffer-0" + LATEST * latest_only
            frames = make_codec().encode(HELLO, "buffer-0")
            assert owner._out.hand_over(connection, frames)
            assert receive(server) == ("buffer-0", HELLO)
            before = server._out.ways[name]
            owner._out.clients[connection].disconnect(endpoint)
            owner._out.clients[connection].connect(endpoint)
            give_up_s = time.monotonic() + PATIENCE_S
            while server._out.ways[name] == before and time.monotonic() < give_up_s:
                list(owner.receive(0.05))
                list(server.receive(0.05))
            assert server._out.ways[name].connection == before.connection, "it is the same life"
            assert server._out.hand_over(name, make_codec().encode(HELLO, "actor-0"))
            assert receive(owner) == ("actor-0", HELLO)
