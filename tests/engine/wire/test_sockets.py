"""Frames over real sockets: they arrive whole, and only members of the run reach the decoder.

Nothing here waits for time to pass: a stranger's refusal is an event that its own socket reports.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import zmq
from zmq.utils.monitor import recv_monitor_message

from engine.errors import WireError
from engine.host.ports import listen_on
from engine.messages import (
    TAKERS,
    BatchArrived,
    RolloutArrived,
    Start,
    WeightsArrived,
    WeightsRequested,
)
from engine.rollout import Field, Layout
from engine.testing import make_rollout, make_weights
from engine.wire.codec import Codec, WeightsLayout
from engine.wire.keys import Keyring, make_keyrings
from engine.wire.sockets import Sockets, Wiring
from tests.helpers.engine.socket_kit import (
    HELLO,
    LAYOUT,
    PATIENCE_S,
    CountingCodec,
    link,
    make_codec,
    receive,
    tcp_server,
    wear,
)
from tests.helpers.ports import ANY_PORT


def test_everything_travels_over_ipc_both_ways(tmp_path: Path):
    endpoint = f"ipc://{tmp_path / 's'}"
    rollout = make_rollout(layout=LAYOUT)
    rollout.buffer[:] = np.arange(rollout.buffer.nbytes) % 199
    with (
        Sockets("buffer-0", Wiring(bind=endpoint), make_codec()) as server,
        Sockets("actor-0", Wiring(links=(link("buffer-0", endpoint),)), make_codec()) as client,
    ):
        assert client.send("buffer-0", HELLO)
        assert receive(server) == ("buffer-0", HELLO)
        assert client.send("buffer-0", RolloutArrived(rollout, 3))
        to, message = receive(server)
        assert to == "buffer-0"
        assert isinstance(message, RolloutArrived)
        assert message.info == rollout.info
        assert np.array_equal(message.rollout.buffer, rollout.buffer)
        assert server.send("actor-0", BatchArrived(4, (message.rollout, rollout)))
        to, batch = receive(client)
        assert to == "actor-0"
        assert isinstance(batch, BatchArrived)
        assert [np.array_equal(r.buffer, rollout.buffer) for r in batch.rollouts] == [True, True]


def test_messages_arrive_in_the_order_in_which_they_were_sent(tmp_path: Path):
    endpoint = f"ipc://{tmp_path / 's'}"
    with (
        Sockets("learner-0", Wiring(bind=endpoint), make_codec()) as server,
        Sockets("actor-0", Wiring(links=(link("learner-0", endpoint),)), make_codec()) as client,
    ):
        wanted = [WeightsRequested(actor="actor-0", held_version=i) for i in range(50)]
        for message in wanted:
            client.send("learner-0", message)
        found: list[object] = []
        while len(found) < 50:
            found += [message for _, message in server.receive(PATIENCE_S)]
        assert found == wanted


def test_of_weights_that_nobody_looked_at_only_the_latest_is_left(tmp_path: Path):
    endpoint = f"ipc://{tmp_path / 's'}"
    wiring = Wiring(links=(link("learner-0", endpoint, latest_only=True),))
    with (
        Sockets("learner-0", Wiring(bind=endpoint), make_codec()) as learner,
        Sockets("actor-0", wiring, make_codec()) as actor,
    ):
        actor.send("learner-0", WeightsRequested(actor="actor-0", held_version=-1))
        receive(learner)
        for version in range(200):
            assert learner.send("actor-0", WeightsArrived(make_weights(version, 16)))
        seen = [-1]
        while seen[-1] != 199:
            _, message = receive(actor)
            assert isinstance(message, WeightsArrived)
            assert message.weights.version > seen[-1], "never an older one after a newer"
            seen.append(message.weights.version)


def test_a_frame_that_must_not_be_decoded_is_reported_and_the_next_one_read(tmp_path: Path):
    endpoint = f"ipc://{tmp_path / 's'}"
    other = CountingCodec(Layout(LAYOUT.fields, 2, 4), WeightsLayout(16, 7))
    with (
        Sockets("buffer-0", Wiring(bind=endpoint), make_codec()) as server,
        Sockets("actor-0", Wiring(links=(link("buffer-0", endpoint),)), other) as client,
    ):
        layout = Layout(LAYOUT.fields, 2, 4)
        client.send("buffer-0", RolloutArrived(make_rollout(layout=layout), 0))
        _, error = receive(server)
        assert isinstance(error, WireError)
        assert error.where == "frame from actor-0"
        assert server.num_refused == 1
        client.send("buffer-0", HELLO)
        assert receive(server) == ("buffer-0", HELLO)


def test_the_largest_frames_of_a_run_pass_encrypted_both_ways():
    """Seals make them larger on the wire, where size is limited."""
    layout = Layout((Field("observation", "uint8"),), 17 * 2**20 + 5, 1)
    keyrings = make_keyrings(["buffer-0", "actor-0"])
    rollout = make_rollout(layout=layout)
    rollout.buffer[:] = np.arange(rollout.buffer.nbytes) % 251
    wiring = Wiring(bind="tcp://127.0.0.1:*", keyring=keyrings["buffer-0"])
    codec = Codec(layout, WeightsLayout(17 * 2**20, 7))
    with Sockets("buffer-0", wiring, codec) as server:
        assert server._out.server is not None
        endpoint = server._out.server.get_string(zmq.LAST_ENDPOINT)
        wiring = Wiring(links=(link("buffer-0", endpoint),), keyring=keyrings["actor-0"])
        with Sockets("actor-0", wiring, codec) as client:
            assert client.send("buffer-0", RolloutArrived(rollout, 0))
            _, message = receive(server)
            assert isinstance(message, RolloutArrived)
            assert np.array_equal(message.rollout.buffer, rollout.buffer)
            assert server.send("actor-0", BatchArrived(4, (message.rollout, rollout)))
            _, batch = receive(client)
            assert isinstance(batch, BatchArrived)
            assert all(np.array_equal(r.buffer, rollout.buffer) for r in batch.rollouts)


def test_two_roles_of_one_process_are_reached_over_one_connection(tmp_path: Path):
    endpoint = f"ipc://{tmp_path / 's'}"
    routes = {"buffer-0": "worker-0", "learner-0": "worker-0"}
    wiring = Wiring(links=(link("worker-0", endpoint),), routes=routes)
    with (
        Sockets("worker-0", Wiring(bind=endpoint), make_codec()) as worker,
        Sockets("actor-0", wiring, make_codec()) as actor,
    ):
        for role in ("buffer-0", "learner-0"):
            assert actor.send(role, HELLO)
            assert receive(worker) == (role, HELLO)


def test_weights_have_a_connection_of_their_own_beside_another(tmp_path: Path):
    endpoint = f"ipc://{tmp_path / 's'}"
    links = (link("learner-0", endpoint), link("learner-0", endpoint, latest_only=True))
    with (
        Sockets("learner-0", Wiring(bind=endpoint), make_codec()) as learner,
        Sockets("actor-0", Wiring(links=links), make_codec()) as actor,
    ):
        for number in range(20):
            actor.send("learner-0", Start(origin_ns=number))
        actor.send("learner-0", WeightsRequested(actor="actor-0", held_version=-1))
        found: list[object] = []
        while len(found) < 21:
            found += [message for _, message in learner.receive(PATIENCE_S)]
        assert sum(isinstance(message, Start) for message in found) == 20, "none was conflated"
        assert learner.send("actor-0", WeightsArrived(make_weights(1, 16)))
        to, message = receive(actor)
        assert to == TAKERS
        assert isinstance(message, WeightsArrived)


def test_the_connection_for_weights_is_a_member_s_too_over_tcp():
    (listener,) = listen_on("127.0.0.1", ANY_PORT, 1)
    endpoint = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
    keys = make_keyrings(["learner-0", "actor-0"])
    both = (link("learner-0", endpoint), link("learner-0", endpoint, latest_only=True))
    wiring = Wiring(links=both, keyring=keys["actor-0"])
    server = Wiring(bind=endpoint, listener=listener.detach(), keyring=keys["learner-0"])
    with (
        Sockets("learner-0", server, make_codec()) as it,
        Sockets("actor-0", wiring, make_codec()) as actor,
    ):
        request = WeightsRequested(actor="actor-0", held_version=-1)
        actor.send("learner-0", request)
        assert receive(it) == ("learner-0", request)
        assert it.send("actor-0", WeightsArrived(make_weights(1, 16)))
        assert receive(actor)[0] == TAKERS


def test_sending_to_nobody_is_no_error(tmp_path: Path):
    with Sockets("buffer-0", Wiring(bind=f"ipc://{tmp_path / 's'}"), make_codec()) as server:
        assert not server.send("actor-9", Start(origin_ns=0))
    with Sockets("actor-0", Wiring(), make_codec()) as client:
        assert not client.send("buffer-0", HELLO)
        assert list(client.receive(0.0)) == []


def test_a_member_is_admitted_over_tcp():
    keyrings = make_keyrings(["buffer-0", "actor-0"])
    with tcp_server(keyrings["buffer-0"]) as (server, endpoint, codec):
        wiring = Wiring(links=(link("buffer-0", endpoint),), keyring=keyrings["actor-0"])
        with Sockets("actor-0", wiring, make_codec()) as client:
            client.send("buffer-0", HELLO)
            assert receive(server) == ("buffer-0", HELLO)
            server.send("actor-0", Start(origin_ns=3))
            assert receive(client) == ("actor-0", Start(origin_ns=3))
    assert codec.num_decoded == 1


REFUSED = zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
DROPPED = zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_DISCONNECTED


def knock(socket: zmq.Socket[bytes], endpoint: str) -> None:
    """Sends a valid message as a stranger would, until the server has turned it away."""
    message = bytes(make_codec().encode(Start(origin_ns=666), "buffer-0")[0])
    monitor = socket.get_monitor_socket(REFUSED | DROPPED)
    try:
        socket.set(zmq.LINGER, 0)
        socket.set(zmq.IDENTITY, b"actor-0")
        socket.connect(endpoint)
        with suppress(zmq.Again):  # turned away before it could speak: nobody takes it any more
            socket.send(message, zmq.NOBLOCK)
        assert monitor.poll(int(PATIENCE_S * 1000)), "the stranger was never turned away"
        recv_monitor_message(monitor)
    finally:
        socket.disable_monitor()
        monitor.close(0)
        socket.close(0)


@pytest.mark.parametrize("disguise", ["plaintext", "stranger's key", "wrong server key"])
def test_a_stranger_never_reaches_the_decoder(disguise: str):
    keyrings = make_keyrings(["buffer-0", "actor-0"])
    strangers = make_keyrings(["actor-0", "buffer-0"])
    with tcp_server(keyrings["buffer-0"]) as (server, endpoint, codec):
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        socket = context.socket(zmq.DEALER)
        if disguise == "stranger's key":
            own = Keyring(strangers["actor-0"].own, keyrings["actor-0"].members)
            wear(socket, "actor-0", own)
        elif disguise == "wrong server key":
            wear(socket, "actor-0", Keyring(keyrings["actor-0"].own, strangers["actor-0"].members))
        knock(socket, endpoint)
        context.term()
        wiring = Wiring(links=(link("buffer-0", endpoint),), keyring=keyrings["actor-0"])
        with Sockets("actor-0", wiring, make_codec()) as member:
            member.send("buffer-0", HELLO)
            assert receive(server) == ("buffer-0", HELLO), "a member still gets through"
        assert codec.num_decoded == 1
        assert server.num_refused == 0
        assert list(server.receive(0.0)) == []


def test_a_stranger_cannot_pose_as_the_server():
    keyrings, strangers = (make_keyrings(["buffer-0", "actor-0"]) for _ in range(2))
    with tcp_server(strangers["buffer-0"]) as (server, endpoint, codec):
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        socket = context.socket(zmq.DEALER)
        wear(socket, "actor-0", keyrings["actor-0"])
        knock(socket, endpoint)
        context.term()
        assert list(server.receive(0.0)) == []
        assert codec.num_decoded == 0


def test_keys_differ_between_runs_and_are_not_shown():
    one, other = (make_keyrings(["actor-0", "buffer-0"]) for _ in range(2))
    assert one["actor-0"].own.public != other["actor-0"].own.public
    assert one["actor-0"].members == one["buffer-0"].members
    assert set(one["actor-0"].members) == {"actor-0", "buffer-0"}
    assert one["actor-0"].own.secret not in repr(one)
