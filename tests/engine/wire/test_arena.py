"""Shared slots: who holds one, who frees it, what happens to those of the dead."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from engine.blueprint import make_arena, make_blueprint
from engine.errors import WireError
from engine.executors.actor import ActorExecutor
from engine.messages import BatchArrived, RolloutArrived, Start
from engine.rollout import Field, Layout, Rollout
from engine.runtime.loop import LoopClock
from engine.testing import make_experiment, make_rollout
from engine.wire import header
from engine.wire.arena import Arena
from engine.wire.codec import Codec, WeightsLayout
from engine.wire.header import HEADER_BYTES
from engine.wire.socket_factory import Link
from engine.wire.sockets import Sockets, Wiring

LAYOUT = Layout((Field("reward", "float32"),), 4, 2)
NUM_SLOTS = 6


@pytest.fixture
def arena() -> Arena:
    return Arena(2, 3, LAYOUT.num_bytes)


def codec(arena: Arena | None) -> Codec:
    return Codec(LAYOUT, WeightsLayout(16, 7), arena=arena)


def shared_rollout(arena: Arena, fill: int, owner: int = 0) -> Rollout:
    buffer = arena.take(owner)
    assert buffer is not None
    buffer[:] = fill
    return Rollout(make_rollout(layout=LAYOUT).info, buffer)


def test_a_slot_is_free_again_when_no_view_of_it_is_left(arena: Arena):
    buffer = arena.take(0)
    assert buffer is not None
    assert buffer.nbytes == LAYOUT.num_bytes
    views = LAYOUT.views(buffer)
    del buffer
    assert arena.num_free == NUM_SLOTS - 1
    del views
    assert arena.num_free == NUM_SLOTS


def test_each_owner_has_its_own_slots_and_gets_none_beyond(arena: Arena):
    held = [arena.take(0) for _ in range(4)]
    assert [slot is None for slot in held] == [False, False, False, True]
    assert arena.take(1) is not None
    assert arena.take(2) is None, "an owner that was not planned for"


def test_slots_do_not_overlap_and_begin_where_vectors_want_them(arena: Arena):
    held = [
        buffer for owner in (0, 1) for _ in range(3) if (buffer := arena.take(owner)) is not None
    ]
    for number, buffer in enumerate(held):
        buffer[:] = number
    assert [int(buffer[0]) for buffer in held] == [int(buffer[-1]) for buffer in held]
    assert {int(buffer[0]) for buffer in held} == set(range(NUM_SLOTS))
    assert all(buffer.ctypes.data % 64 == 0 for buffer in held)


def test_a_handed_over_slot_is_freed_by_its_receiver_only(arena: Arena):
    rollout = shared_rollout(arena, 7)
    slot = arena.hand_over(rollout.buffer)
    assert slot is not None
    received = arena.attach(slot)
    del rollout
    assert arena.num_free == NUM_SLOTS - 1
    assert (received == 7).all()
    del received
    assert arena.num_free == NUM_SLOTS


def test_other_memory_is_never_handed_over(arena: Arena):
    assert arena.hand_over(np.zeros(64, np.uint8)) is None


@pytest.mark.parametrize("slot", [0, 5, 6, 1000])
def test_a_slot_that_nobody_sent_is_refused(arena: Arena, slot: int):
    with pytest.raises(WireError, match="was never sent"):
        arena.attach(slot)


def test_a_neighbour_gets_the_header_and_reads_the_slot(arena: Arena):
    one = codec(arena)
    frames = one.encode(RolloutArrived(shared_rollout(arena, 9), 3), "buffer-0", shares_memory=True)
    assert [len(frame) for frame in frames] == [HEADER_BYTES]
    message = one.decode(frames)
    assert isinstance(message, RolloutArrived)
    assert message.held_version == 3
    assert (message.rollout.buffer == 9).all()
    batch = one.encode(BatchArrived(4, (message.rollout,)), "learner-0", shares_memory=True)
    del message
    assert [len(frame) for frame in batch] == [HEADER_BYTES, HEADER_BYTES]
    arrived = one.decode(batch)
    assert isinstance(arrived, BatchArrived)
    assert (arrived.rollouts[0].buffer == 9).all()
    del arrived
    assert arena.num_free == NUM_SLOTS


def test_others_get_the_whole_rollout(arena: Arena):
    rollout = shared_rollout(arena, 9)
    (frame,) = codec(arena).encode(RolloutArrived(rollout, 3), "buffer-0")
    assert len(frame) == HEADER_BYTES + LAYOUT.num_bytes
    message = codec(None).decode([bytes(frame)])
    assert isinstance(message, RolloutArrived)
    assert (message.rollout.buffer == 9).all()


def test_a_slot_is_refused_where_nothing_is_shared(arena: Arena):
    frames = codec(arena).encode(
        RolloutArrived(shared_rollout(arena, 1), 0), "buffer-0", shares_memory=True
    )
    with pytest.raises(WireError, match="none is shared"):
        codec(None).decode(frames)


def test_frames_that_found_no_way_free_their_slots(arena: Arena):
    one = codec(arena)
    frames = one.encode(RolloutArrived(shared_rollout(arena, 1), 0), "buffer-0", shares_memory=True)
    assert header.slot_of(frames[0]) is not None
    one.free([*frames, *one.encode(Start(origin_ns=1), "actor-0")])
    assert arena.num_free == NUM_SLOTS


@pytest.fixture
def sockets(arena: Arena, tmp_path: Path) -> Iterator[tuple[Sockets, Sockets]]:
    """An actor and a buffer that are neighbours."""
    endpoint = f"ipc://{tmp_path}/buffer-0"
    with ExitStack() as stack:
        server = stack.enter_context(
            Sockets(
                "buffer-0", Wiring(bind=endpoint, neighbours=frozenset({"nobody"})), codec(arena)
            )
        )
        wiring = Wiring(
            links=(Link(peer="buffer-0", endpoint=endpoint),), neighbours=frozenset({"buffer-0"})
        )
        yield stack.enter_context(Sockets("actor-0", wiring, codec(arena))), server


@pytest.mark.processes
def test_sockets_send_slots_to_neighbours(arena: Arena, sockets: tuple[Sockets, Sockets]):
    actor, buffer = sockets
    assert actor.send("buffer-0", RolloutArrived(shared_rollout(arena, 5), 1))
    ((to, message),) = list(buffer.receive(20.0))
    assert to == "buffer-0"
    assert isinstance(message, RolloutArrived)
    assert (message.rollout.buffer == 5).all()
    assert arena.num_free == NUM_SLOTS - 1
    assert not buffer.send("nobody", message), "there is no way to it"
    del message
    assert arena.num_free == NUM_SLOTS


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_child_that_is_killed_leaves_its_finished_work_and_no_file():
    """It dies between a slot that it has sent and one that it was writing."""
    before = set(os.listdir("/dev/shm"))
    arena = Arena(1, 3, LAYOUT.num_bytes)
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        sent, writing = shared_rollout(arena, 42), arena.take(0)
        assert writing is not None
        os.write(write, bytes([arena.hand_over(sent.buffer) or 0]))
        os.kill(os.getpid(), signal.SIGKILL)
    slot = os.read(read, 1)[0]
    os.close(read)
    os.close(write)
    os.waitpid(pid, 0)
    assert set(os.listdir("/dev/shm")) == before
    assert arena.num_free == 1
    arena.reclaim(0)
    assert arena.num_free == 2
    received = arena.attach(slot)
    assert (received == 42).all()
    del received
    assert arena.num_free == 3


def test_what_a_dead_actor_sent_and_nobody_took_in_is_free_again(arena: Arena):
    """Of three rollouts of its first life one was taken in, one is on the wire, one never left."""
    one = codec(arena)
    frames = [
        one.encode(RolloutArrived(shared_rollout(arena, n), 0), "buffer-0", shares_memory=True)
        for n in range(3)
    ]
    held = one.decode(frames[0])
    assert isinstance(held, RolloutArrived)
    assert arena.reclaim_sent(0, epoch=0) == 2
    assert arena.num_free == NUM_SLOTS - 1
    assert (held.rollout.buffer == 0).all(), "what the buffer holds stays"
    with pytest.raises(WireError, match="never sent"):
        one.decode(frames[1])
    again = [arena.take(0, epoch=1) for _ in range(2)]
    assert all(buffer is not None for buffer in again), "the next life has its slots"
    late = again[0]
    assert late is not None
    slot = arena.hand_over(late)
    del late, again
    with pytest.raises(WireError, match="another incarnation"):
        one.decode(frames[1])
    assert arena.reclaim_sent(0, epoch=0) == 0, "told again, it leaves the next life alone"
    assert slot is not None
    assert arena.attach(slot, epoch=1) is not None


def test_what_is_on_its_way_to_the_learner_is_not_taken_for_lost(arena: Arena):
    one = codec(arena)
    frames = one.encode(RolloutArrived(shared_rollout(arena, 4), 0), "buffer-0", shares_memory=True)
    arrived = one.decode(frames)
    assert isinstance(arrived, RolloutArrived)
    batch = one.encode(BatchArrived(0, (arrived.rollout,)), "learner-0", shares_memory=True)
    del arrived
    assert arena.reclaim_sent(0, epoch=0) == 0
    trained = one.decode(batch)
    assert isinstance(trained, BatchArrived)
    assert (trained.rollouts[0].buffer == 4).all()


def test_an_actor_writes_into_its_slots_and_then_into_its_own_memory():
    blueprint = make_blueprint(make_experiment(actors=2))
    arena = Arena(2, 1, blueprint.layout.num_bytes)
    executor = ActorExecutor(blueprint, 1, 0, LoopClock(), arena)
    shared, own = executor._allocate(blueprint.layout.num_bytes), executor._allocate(64)
    assert arena.num_free == 1
    assert (shared.nbytes, own.nbytes) == (blueprint.layout.num_bytes, 64)
    executor.close()
    del shared
    gc.collect()
    assert arena.num_free == 2


def test_the_arena_holds_all_that_a_run_may_have_on_its_way():
    blueprint = make_blueprint(make_experiment(actors=3))
    arena = make_arena(blueprint)
    assert arena.num_free >= 64 + 2 * blueprint.rollouts_per_batch + 3
