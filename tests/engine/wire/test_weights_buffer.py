"""Boards: weights are whole whenever they are read, and one copy is enough for all readers."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from engine.errors import WireError
from engine.messages import TAKERS, WeightsArrived, WeightsRequested
from engine.rollout import Weights
from engine.wire.arena import Arena
from engine.wire.codec import Codec, WeightsLayout
from engine.wire.header import HEADER_BYTES
from engine.wire.socket_factory import Link
from engine.wire.sockets import Sockets, Wiring
from engine.wire.weights_buffer import SharedWeights
from tests.helpers.engine.socket_kit import LAYOUT, PATIENCE_S

NUM_BYTES = 64


def full(value: int, num_bytes: int = NUM_BYTES) -> np.ndarray:
    return np.full(num_bytes, value, np.uint8)


def shared_codec(num_learners: int = 1) -> Codec:
    shared_weights = SharedWeights(num_learners, NUM_BYTES)
    arena = Arena(1, 1, LAYOUT.num_bytes, None, shared_weights)
    return Codec(LAYOUT, WeightsLayout(NUM_BYTES, 7), arena=arena)


def test_the_latest_are_read_whatever_version_was_announced():
    shared_weights = SharedWeights(2, NUM_BYTES)
    for version in range(6):
        shared_weights.publish(1, version, full(version))
    found, buffer = shared_weights.read(1, 2)
    assert found == 5
    assert (buffer == 5).all()
    shared_weights.publish(1, 6, full(6))
    assert (buffer == 5).all(), "a reader has its own copy"


def test_weights_that_nobody_published_are_refused():
    shared_weights = SharedWeights(2, NUM_BYTES)
    shared_weights.publish(0, 3, full(3))
    for learner, version in ((0, 4), (1, 0), (2, 0)):
        with pytest.raises(WireError, match="weights"):
            shared_weights.read(learner, version)


def test_neighbours_get_a_header_and_others_everything():
    one = shared_codec()
    message = WeightsArrived(Weights(4, full(9)))
    (near,) = one.encode(message, "actor-0", shares_memory=True, learner=0)
    assert len(near) == HEADER_BYTES
    arrived = one.decode([near])
    assert isinstance(arrived, WeightsArrived)
    assert (arrived.weights.version, arrived.weights.num_bytes) == (4, NUM_BYTES)
    assert (arrived.weights.buffer == 9).all()
    (far,) = one.encode(message, "actor-0", learner=0)
    assert len(far) == HEADER_BYTES + NUM_BYTES
    with pytest.raises(WireError, match="none is shared"):
        Codec(LAYOUT, WeightsLayout(NUM_BYTES, 7)).decode([near])


@pytest.mark.processes
def test_all_actors_of_a_host_read_one_copy(tmp_path: Path):
    endpoint = f"ipc://{tmp_path}/s"
    one = shared_codec()
    actors = ("actor-0", "actor-1")
    with ExitStack() as stack:
        wiring = Wiring(bind=endpoint, neighbours=frozenset(actors))
        learner = stack.enter_context(Sockets("learner-0", wiring, one))
        for name in actors:
            link = Link(peer="learner-0", endpoint=endpoint, latest_only=True)
            actor = stack.enter_context(Sockets(name, Wiring(links=(link,)), one))
            actor.send("learner-0", WeightsRequested(actor=name, held_version=-1))
            assert next(iter(learner.receive(PATIENCE_S)))
            assert learner.send(name, WeightsArrived(Weights(3, full(3))))
            ((to, message),) = list(actor.receive(PATIENCE_S))
            assert to == TAKERS
            assert isinstance(message, WeightsArrived)
            assert message.weights.version == 3
            assert (message.weights.buffer == 3).all()


@pytest.mark.processes
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_weights_are_whole_while_a_learner_writes_and_after_it_was_killed():
    """It publishes as fast as it can, and is killed somewhere in between."""
    size = 2**20
    shared_weights = SharedWeights(1, size)
    shared_weights.publish(0, 0, full(0, size))
    pid = os.fork()
    if pid == 0:
        version = 0
        while True:
            version += 1
            shared_weights.publish(0, version, full(version % 251, size))
    seen = set()
    while len(seen) < 20:
        version, buffer = shared_weights.read(0, max(seen, default=0))
        assert (buffer == version % 251).all()
        seen.add(version)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    version, buffer = shared_weights.read(0, max(seen))
    assert (buffer == version % 251).all()


def test_versions_that_can_be_requested_are_read_as_announced_while_they_are_kept():
    shared_weights = SharedWeights(2, NUM_BYTES, num_kept=3)
    for version in (0, 1, 2, 3):
        shared_weights.publish(1, version, full(version))
        shared_weights.publish(1, version, full(99))  # it is there already
    for version in (1, 2, 3):
        found, buffer = shared_weights.read(1, version)
        assert (found, buffer[0]) == (version, version)
    for version in (4, 5, 6):
        shared_weights.publish(1, version, full(version))
    found, buffer = shared_weights.read(1, 2)
    assert (found, buffer[0]) == (6, 6), "what is gone is no more needed; a newer one is harmless"


def test_an_older_version_that_comes_late_does_not_become_the_latest():
    shared_weights = SharedWeights(1, NUM_BYTES, num_kept=2)
    shared_weights.publish(0, 4, full(4))
    shared_weights.publish(0, 3, full(3))
    assert shared_weights.read(0, 3)[0] == 3
    assert shared_weights.read(0, 2)[0] == 4
