"""However many small messages are sent at once, all arrive; weights alone may not pile up."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest
import zmq

from engine.host.ports import listen_on
from engine.messages import ActorLost, WeightsArrived, WeightsRequested
from engine.rollout import Weights
from engine.testing import make_weights
from engine.wire.codec import Codec, WeightsLayout
from engine.wire.frames import allocate_framed
from engine.wire.keys import Keyring, make_keyrings
from engine.wire.outgoing import (
    MAX_ALL_BYTES,
    MAX_IN_FLIGHT_BYTES,
    MIN_IN_FLIGHT,
    InFlightWeights,
    Outgoing,
    Way,
)
from engine.wire.socket_factory import LATEST, seals_of
from engine.wire.sockets import MAX_TAKEN, Sockets, Wiring
from tests.helpers.engine import socket_kit
from tests.helpers.engine.socket_kit import HELLO, LAYOUT, PATIENCE_S, link, receive, wear
from tests.helpers.ports import ANY_PORT

NUM_BYTES = 16 * 2**20
"""Of weights so large that no more than `MIN_IN_FLIGHT` may wait."""
MESSAGES = [ActorLost(actor=f"actor-{i}", epoch=0, collected=i) for i in range(900)]


def make_codec() -> Codec:
    return Codec(LAYOUT, WeightsLayout(NUM_BYTES, 7))


@contextmanager
def opened(
    server: str, client: str, directory: Path, keys: dict[str, Keyring]
) -> Iterator[list[Sockets]]:
    """Two processes, one of which has said hello to the other; over TCP if there are keys."""
    endpoint, own = f"ipc://{directory}/s", None
    if keys:
        (listener,) = listen_on("127.0.0.1", ANY_PORT, 1)
        endpoint = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        own = listener.detach()
    wirings = {
        server: Wiring(bind=endpoint, listener=own, keyring=keys.get(server)),
        client: Wiring(links=(link(server, endpoint),), keyring=keys.get(client)),
    }
    with ExitStack() as stack:
        both = [stack.enter_context(Sockets(*item, make_codec())) for item in wirings.items()]
        both[1].send(server, HELLO)
        receive(both[0])
        yield both


@pytest.mark.parametrize("is_tcp", [False, True], ids=["ipc", "tcp"])
def test_a_burst_of_small_messages_to_one_peer_arrives_whole(is_tcp: bool, tmp_path: Path):
    keys = make_keyrings(["coordinator", "buffer-0"]) if is_tcp else {}
    with opened("coordinator", "buffer-0", tmp_path, keys) as (coordinator, buffer):
        assert all(coordinator.send("buffer-0", message) for message in MESSAGES)
        found: list[object] = []
        give_up_s = time.monotonic() + PATIENCE_S
        while len(found) < len(MESSAGES) and time.monotonic() < give_up_s:
            found += [message for _, message in buffer.receive(0.1)]
            assert list(coordinator.receive(0.0)) == []
        assert found == MESSAGES


@contextmanager
def slow_taker(
    learner: Sockets, actor: Sockets, keyring: Keyring | None
) -> Iterator[zmq.Socket[bytes]]:
    """The actor's connection for weights, on which nothing is taken until somebody looks."""
    assert learner._out.server is not None
    with zmq.Context() as context, context.socket(zmq.DEALER) as slow:
        slow.set(zmq.LINGER, 0)
        slow.set(zmq.RCVHWM, 1)
        slow.set(zmq.RCVBUF, 2**16)
        request = WeightsRequested(actor="actor-0", held_version=-1)
        parts = make_codec().encode(request, "learner-0")
        if keyring is not None:
            wear(slow, f"actor-0{LATEST}", keyring, "learner-0")
            seals = actor._seals
            assert seals is not None
            connection = seals.connection(f"actor-0{LATEST}")
            parts = seals.seal("learner-0", connection, parts)
        else:
            slow.set(zmq.IDENTITY, f"actor-0{LATEST}".encode())
        slow.connect(learner._out.server.get_string(zmq.LAST_ENDPOINT))
        slow.send_multipart(parts)
        assert receive(learner) == ("learner-0", request)
        yield slow


@pytest.mark.parametrize("is_tcp", [False, True], ids=["ipc", "tcp"])
def test_weights_do_not_pile_up_for_a_slow_peer_and_messages_still_reach_it(
    is_tcp: bool, tmp_path: Path
):
    weights = WeightsArrived(Weights(1, allocate_framed(NUM_BYTES)))
    keys = make_keyrings(["learner-0", "actor-0"]) if is_tcp else {}
    with (
        opened("learner-0", "actor-0", tmp_path, keys) as (learner, actor),
        slow_taker(learner, actor, keys.get("actor-0")) as slow,
    ):
        num_sent = sum(learner.send("actor-0", weights) for _ in range(100))
        in_its_hands = 3
        assert MIN_IN_FLIGHT <= num_sent <= MIN_IN_FLIGHT + in_its_hands
        assert all(learner.send("actor-0", message) for message in MESSAGES)
        assert receive(actor) == ("actor-0", MESSAGES[0])
        for _ in range(num_sent):
            assert slow.poll(PATIENCE_S * 1000)
            slow.recv(copy=False)
        for tracker in learner._out._in_flight._sent[f"actor-0{LATEST}"]:
            cast("zmq.MessageTracker", tracker).wait(PATIENCE_S)
        assert learner.send("actor-0", weights), "those have left"


def test_weights_come_by_their_own_connection_where_the_learner_is_a_client_too(tmp_path: Path):
    """As where actors share a process with the buffer; here that one never listens."""
    endpoint = f"ipc://{tmp_path}/l"
    to_buffer = link("worker-0", f"ipc://{tmp_path}/w")
    routes = {"actor-0": "worker-0", "buffer-0": "worker-0"}
    wiring = Wiring(bind=endpoint, links=(to_buffer,), routes=routes)
    latest = Wiring(links=(link("learner-0", endpoint, latest_only=True),))
    with (
        Sockets("learner-0", wiring, socket_kit.make_codec()) as learner,
        Sockets("worker-0", latest, socket_kit.make_codec()) as worker,
    ):
        worker.send("learner-0", WeightsRequested(actor="actor-0", held_version=-1))
        receive(learner)
        assert learner.send("actor-0", WeightsArrived(make_weights(1, 16)))
        assert isinstance(receive(worker)[1], WeightsArrived)


def test_many_slow_peers_together_have_a_limit_too():
    in_flight = InFlightWeights(MAX_IN_FLIGHT_BYTES // 4)
    peers = [f"actor-{number}~latest" for number in range(100)]
    num_sent = 0
    for peer in peers * 4:
        if in_flight.has_room(peer):
            in_flight.add(peer, Sent())
            num_sent += 1
    assert num_sent == max(MAX_ALL_BYTES // (MAX_IN_FLIGHT_BYTES // 4), len(peers))
    assert in_flight.has_room("another~latest"), "one for each"


@dataclass
class Sent:
    done: bool = False


def test_as_many_weights_may_wait_for_a_peer_as_fit_and_another_when_one_has_left():
    in_flight = InFlightWeights(MAX_IN_FLIGHT_BYTES // 6)
    frames = [Sent() for _ in range(6)]
    for frame in frames:
        assert in_flight.has_room("actor-0~latest")
        in_flight.add("actor-0~latest", frame)
    assert not in_flight.has_room("actor-0~latest")
    assert in_flight.has_room("actor-1~latest"), "every peer has a link of its own"
    frames[0].done = True
    assert in_flight.has_room("actor-0~latest")


def test_what_has_left_at_once_is_not_counted():
    in_flight = InFlightWeights(MAX_IN_FLIGHT_BYTES)
    for _ in range(100):
        in_flight.add("actor-0~latest", Sent(done=True))
    assert in_flight.has_room("actor-0~latest")


def test_a_few_weights_may_wait_however_large_they_are():
    in_flight = InFlightWeights(2 * MAX_IN_FLIGHT_BYTES)
    for _ in range(MIN_IN_FLIGHT):
        assert in_flight.has_room("actor-0~latest")
        in_flight.add("actor-0~latest", Sent())
    assert not in_flight.has_room("actor-0~latest")


def test_what_a_stalled_peer_does_not_take_is_sealed_once_for_each_life(
    monkeypatch: pytest.MonkeyPatch,
):
    keys = make_keyrings(["learner-0", "actor-0"])
    seals = seals_of("learner-0", keys["learner-0"])
    sealed_for: list[bytes] = []

    def seal(peer: str, connection: bytes, frames: object, *, as_one: bool = False) -> list[bytes]:
        sealed_for.append(connection)
        return [b"sealed"]

    monkeypatch.setattr(seals, "seal", seal)
    out = Outgoing(InFlightWeights(1), seals)
    out.learns_ways, out.ways["actor-0"] = True, Way(b"1", b"a life")
    server = StallingServer()
    out.server = cast("zmq.Socket[bytes]", server)
    assert out.hand_over("actor-0", [b"first"])
    for _ in range(5):
        out.release()
    assert sealed_for == [b"a life"]
    out.ways["actor-0"] = Way(b"2", b"the next")
    out.release()
    server.is_stalled = False
    out.release()
    assert sealed_for == [b"a life", b"the next"]
    assert server.sent == [[b"2", b"sealed"]]
    assert not out.holds


class StallingServer:
    """Accepts nothing for a while."""

    def __init__(self) -> None:
        self.is_stalled = True
        self.sent: list[list[bytes]] = []

    def send_multipart(self, parts: list[bytes], *_: object, **__: object) -> None:
        if self.is_stalled:
            raise zmq.Again
        self.sent.append(parts)


def test_a_flood_is_taken_in_turns(tmp_path: Path):
    with opened("coordinator", "buffer-0", tmp_path, {}) as (coordinator, buffer):
        assert all(coordinator.send("buffer-0", message) for message in MESSAGES)
        counts: list[int] = []
        give_up_s = time.monotonic() + PATIENCE_S
        while sum(counts) < len(MESSAGES) and time.monotonic() < give_up_s:
            counts.append(len(list(buffer.receive(0.1))))
        assert sum(counts) == len(MESSAGES)
        assert max(counts) <= MAX_TAKEN
