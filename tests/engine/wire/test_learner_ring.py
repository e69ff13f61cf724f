"""The ring that adds up gradients between hosts: real sockets and keys, members as threads."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import numpy as np
import pytest
import zmq
from zmq.utils.monitor import recv_monitor_message

from engine.errors import RunFailedError
from engine.wire import learner_ring as ring_module
from engine.wire.keys import Keyring, make_keyrings
from engine.wire.learner_ring import PIECE_BYTES, SHORT_BYTES, LearnerRing, _RingSockets
from tests.helpers.engine.hostile_words import WORDS, is_closed
from tests.helpers.engine.rings import member_of, ring_seats
from tests.helpers.engine.socket_kit import wear

LIMIT_S = 60.0
LONG = 4 * PIECE_BYTES
"""Values of a vector that has several pieces for each of four members."""


@pytest.fixture(autouse=True)
def _no_long_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """A member whose test has failed ends the others soon."""
    monkeypatch.setattr(ring_module, "MEET_S", 20.0)


def everyone(
    count: int, act: Callable[[LearnerRing, int], object], kind: type[LearnerRing] = LearnerRing
) -> list[object]:
    """What each member of a ring returns."""
    seats, keyrings = ring_seats(count)

    def play(position: int) -> object:
        ring = member_of(seats, keyrings, position, kind)
        try:
            return act(ring, position)
        finally:
            ring.close()

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(play, range(count), timeout=LIMIT_S))


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize(
    ("size", "dtype"),
    [
        (1, "int64"),
        (2, "float32"),
        (SHORT_BYTES // 4 + 1, "float32"),
        (LONG, "float32"),
        (99_999, "float64"),
    ],
)
def test_all_members_get_the_same_bits_of_the_sum(count: int, size: int, dtype: str):
    generator = np.random.default_rng(0)
    values = [(generator.standard_normal(size) * 100).astype(dtype) for _ in range(count)]

    def add_up(ring: LearnerRing, position: int) -> bytes:
        own = values[position].copy()
        for _ in range(2):  # what was sent of the first one must not change with the second
            own[:] = values[position]
            ring.add_up(own)
        total = own.tobytes()
        own[:] = 0
        return total

    found = everyone(count, add_up)
    assert len(set(found)) == 1
    total = np.frombuffer(found[0], dtype)
    np.testing.assert_allclose(total, np.sum(values, axis=0), rtol=1e-5, atol=1e-3)


def test_a_neighbour_that_leaves_is_named():
    def act(ring: LearnerRing, position: int) -> str:
        ring.add_up(np.ones(3))
        if position == 1:
            return ""
        with pytest.raises(RunFailedError) as caught:
            ring.add_up(np.ones(3))
        return caught.value.what

    began_s = time.monotonic()
    said, _ = everyone(2, act)
    assert said == "the ring of learners is broken: worker-1 on host-1 is gone"
    assert time.monotonic() - began_s < 10


class _FastSockets(_RingSockets):
    heartbeat_ms = 300
    heartbeat_timeout_ms = 2_000


class _FastRing(LearnerRing):
    """Notices silence soon."""

    factory = _FastSockets


def test_a_neighbour_that_is_frozen_is_named():
    """Nothing is closed, as when a host loses its power: only heartbeats tell."""
    seats, keyrings = ring_seats(2)
    fork = multiprocessing.get_context("fork")
    child = fork.Process(target=_stay, args=(seats, keyrings))
    child.start()
    ring = member_of(seats, keyrings, 0, _FastRing)
    try:
        ring.add_up(np.ones(3))
        assert child.pid is not None
        os.kill(child.pid, signal.SIGSTOP)
        with pytest.raises(RunFailedError, match="worker-1 on host-1 is gone"):
            ring.add_up(np.ones(3))
    finally:
        child.kill()
        child.join()
        ring.close(linger_ms=0)


def _stay(seats: list[ring_module.RingSeat], keyrings: dict[str, Keyring]) -> None:
    ring = member_of(seats, keyrings, 1, _FastRing)
    ring.add_up(np.ones(3))
    signal.pause()


def test_a_member_that_computes_for_long_is_waited_for():
    """Longer than heartbeats, while more waits for it than any queue of messages holds."""
    values = np.ones(40 * 2**20 // 4, np.float32)

    def act(ring: LearnerRing, position: int) -> float:
        if position == 1:
            time.sleep(3.0)  # stands for an update; heartbeats need the other threads only
        own = values.copy()
        ring.add_up(own)
        return float(own[-1])

    assert everyone(2, act, _FastRing) == [2.0, 2.0]


def test_what_is_not_due_breaks_the_ring():
    def act(ring: LearnerRing, position: int) -> str:
        if position == 0:
            ring._sent += 1
        with pytest.raises(RunFailedError) as caught:
            ring.add_up(np.ones(3 + position))
        return caught.value.what

    said = everyone(2, act)
    assert said[1].endswith("worker-0 on host-0 has sent something else than was due")


def test_a_stranger_reaches_nothing():
    """Whatever it says, it is hung up on, and sums are right."""

    def act(ring: LearnerRing, position: int) -> set[float]:
        found = set()
        for words in WORDS.values():
            if position == 0:
                parts = urlsplit(ring._seat.bind)
                with socket.create_connection((parts.hostname, parts.port), LIMIT_S) as stranger:
                    stranger.sendall(words)
                    assert is_closed(stranger)
            own = np.ones(LONG // 4, np.float32)
            ring.add_up(own)
            found |= {float(own.min()), float(own.max())}
        return found

    assert everyone(2, act) == [{2.0}, {2.0}]


def test_who_has_listened_is_admitted_and_breaks_nothing(capfd: pytest.CaptureFixture[str]):
    """The password of the left neighbour is on the wire; what it seals is not to be had."""

    heard = threading.Event()

    def act(ring: LearnerRing, position: int) -> float:
        if position == 1:
            assert heard.wait(LIMIT_S)
        else:
            with zmq.Context() as context, context.socket(zmq.PUSH) as reader:
                password = ring._seals.password("worker-1", is_client=False)
                reader.set(zmq.PLAIN_USERNAME, b"worker-1")
                reader.set(zmq.PLAIN_PASSWORD, password.encode())
                reader.connect(ring._seat.bind)
                for _ in range(100):
                    reader.send(b"x")
                while ring._num_refused < 100:
                    assert ring._left.poll(LIMIT_S * 1000)
                    assert ring._take() is None
            heard.set()
        own = np.ones(LONG // 4, np.float32)
        ring.add_up(own)
        return float(own.max())

    assert everyone(2, act) == [2.0, 2.0]
    said = capfd.readouterr().err.count("refused a piece in the name of worker-1 on host-1")
    assert said == ring_module.MAX_SAID


def test_what_waits_to_be_received_has_a_limit():
    assert everyone(2, lambda ring, _: int(ring._left.get(zmq.RCVHWM))) == [2**14, 2**14]


def test_a_member_that_is_not_the_left_neighbour_is_refused_as_a_stranger():
    """Neither with a key of its own, nor with one of another member of the run."""
    seats, keyrings = ring_seats(3)
    outsider = make_keyrings(["worker-9"])["worker-9"].own

    def play(position: int) -> float:
        ring = member_of(seats, keyrings, position)
        try:
            if position == 0:  # worker-2 is on its left, worker-1 is not
                members = keyrings["worker-0"].members
                assert not is_admitted("worker-2", Keyring(outsider, members))
                assert not is_admitted("worker-1", keyrings["worker-1"])
            own = np.ones(LONG, np.float32)
            ring.add_up(own)
            return float(own.max())
        finally:
            ring.close()

    def is_admitted(name: str, keys: Keyring) -> bool:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        try:
            thief = context.socket(zmq.PUSH)
            wear(thief, name, keys, "worker-0")
            monitor = thief.get_monitor_socket(
                zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_HANDSHAKE_FAILED_AUTH
            )
            thief.connect(seats[0].bind)
            thief.send(b"\0" * 8, zmq.SNDMORE)
            thief.send(b"\0" * 8)
            assert monitor.poll(LIMIT_S * 1000), "no answer at all"
            event = recv_monitor_message(monitor)["event"]
            return bool(event == zmq.EVENT_HANDSHAKE_SUCCEEDED)
        finally:
            context.destroy(linger=0)

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(play, range(3), timeout=LIMIT_S)) == [3.0] * 3
