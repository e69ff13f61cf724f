"""Rings: order, placeholders, doorbells, and what the dead leave in them."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from engine.errors import WireError
from engine.messages import RolloutArrived, Start, TicketRequested, index_of
from engine.rollout import Field, Layout, Rollout
from engine.testing import make_rollout
from engine.wire.arena import Arena
from engine.wire.codec import Codec, WeightsLayout
from engine.wire.frames import allocate_framed
from engine.wire.socket_factory import Link
from engine.wire.sockets import Sockets, Wiring
from engine.wire.spsc_ring import FRAME, IncomingRings, RingSet, SpscRing

LAYOUT = Layout((Field("reward", "float32"),), 4, 2)
PATIENCE_S = 20.0


def ring_of(rings: RingSet, actor: int = 0) -> SpscRing:
    ring = rings.of(actor)
    assert ring is not None
    return ring


def inbox_of(rings: RingSet) -> IncomingRings:
    inbox = rings.inbox(["learner-0", "buffer-0"])
    assert inbox is not None
    return inbox


def rung(inbox: IncomingRings) -> bool:
    return bool(select.select(list(inbox.doorbells), [], [], 0)[0])


def test_entries_come_once_and_in_order_however_often_the_ring_goes_round():
    rings = RingSet([0, 0], 4)
    ring = ring_of(rings, 1)
    for start in range(0, 30, 3):
        for slot in range(start, start + 3):
            ring.put(7, slot)
        assert ring.take() == [(7, slot) for slot in range(start, start + 3)]
        assert ring.take() == []
    assert ring_of(rings).take() == []


def test_a_lane_never_overwrites_what_nobody_took():
    ring = ring_of(RingSet([0], 2))
    ring.put(0, 1)
    ring.put(0, 2)
    with pytest.raises(WireError, match="overflowed"):
        ring.put(0, 3)
    assert ring.take() == [(0, 1), (0, 2)]
    ring.put(0, 3)
    assert ring.take() == [(0, 3)]


def test_what_lies_behind_a_mark_waits_for_its_frame():
    rings = RingSet([0], 8)
    inbox = inbox_of(rings)
    for entry in (1, FRAME, 2):
        ring_of(rings).put(0, entry)
    assert inbox.take() == [("buffer-0", 0, 1)]
    assert inbox.take() == []
    assert not inbox.can_take()
    assert inbox.take_before_placeholder(0) == []
    assert inbox.take() == [("buffer-0", 0, 2)]


def test_a_frame_that_comes_first_fetches_what_was_sent_before_it():
    rings = RingSet([0], 8)
    inbox = inbox_of(rings)
    for entry in (1, 2, FRAME, 3):
        ring_of(rings).put(0, entry)
    assert inbox.take_before_placeholder(0) == [("buffer-0", 0, 1), ("buffer-0", 0, 2)]
    assert inbox.take() == [("buffer-0", 0, 3)]
    assert inbox.take_before_placeholder(5) == [], "an actor of another host"


def test_a_lost_incarnation_is_skipped_and_its_successor_is_not():
    ring = ring_of(RingSet([0], 8))
    for epoch, entry in ((0, 1), (0, FRAME), (1, 2), (2, 3)):
        ring.put(epoch, entry)
    ring.forget(1)
    assert ring.take() == [(2, 3)]
    ring.put(2, 4)
    ring.forget(1)
    assert ring.take() == [(2, 4)]


def test_the_bell_rings_once_and_only_for_a_buffer_that_sleeps():
    rings = RingSet([0, 1], 8)
    inbox = inbox_of(rings)
    ring_of(rings).put(0, 1)
    assert not rung(inbox)
    assert not inbox.fall_asleep(), "there is something already"
    ring_of(rings).put(0, 5)
    assert not rung(inbox), "so it did not sleep"
    assert inbox.take() == [("buffer-0", 0, 1), ("buffer-0", 0, 5)]
    assert inbox.fall_asleep()
    ring_of(rings, 1).put(0, 1)
    assert not rung(inbox), "that is for another buffer"
    ring_of(rings).put(0, 2)
    ring_of(rings).put(0, 3)
    assert rung(inbox)
    inbox.wake_up()
    assert not rung(inbox)
    assert [slot for _, _, slot in inbox.take()] == [2, 3]


def test_a_process_takes_in_for_its_own_buffers_only():
    rings = RingSet([0, 1, 0], 8)
    assert rings.inbox(["buffer-2", "actor-0"]) is None
    for actor in range(3):
        ring_of(rings, actor).put(0, 10 + actor)
    assert [slot for _, _, slot in inbox_of(rings).take()] == [10, 12]
    assert ring_of(rings, 1).to == "buffer-1"
    assert rings.of(3) is None


@pytest.fixture
def arena() -> Arena:
    return Arena(1, 2, LAYOUT.num_bytes)


@pytest.fixture
def ends(arena: Arena, tmp_path: Path) -> Iterator[tuple[Sockets, Sockets]]:
    """An actor and its buffer."""
    endpoint = f"ipc://{tmp_path}/s"
    codec = Codec(LAYOUT, WeightsLayout(16, 7), arena=arena)
    wiring = Wiring(
        links=(Link(peer="buffer-0", endpoint=endpoint),), neighbours=frozenset({"buffer-0"})
    )
    with ExitStack() as stack:
        buffer = stack.enter_context(Sockets("buffer-0", Wiring(bind=endpoint), codec))
        yield stack.enter_context(Sockets("actor-0", wiring, codec)), buffer


def rollout(arena: Arena, sequence: int) -> Rollout:
    """In a slot if there is a free one, as an actor would."""
    buffer = arena.take(0)
    if buffer is None:
        buffer = allocate_framed(LAYOUT.num_bytes)
    buffer[:] = sequence
    return Rollout(make_rollout(layout=LAYOUT, sequence=sequence).info, buffer)


def arrivals(buffer: Sockets, count: int) -> list[int]:
    """The sequence numbers of the next rollouts, whose bytes must be theirs."""
    found: list[int] = []
    deadline_s = time.monotonic() + PATIENCE_S
    while len(found) < count and time.monotonic() < deadline_s:
        for to, message in buffer.receive(1.0):
            assert to == "buffer-0"
            assert isinstance(message, RolloutArrived)
            assert (message.rollout.buffer == message.info.sequence).all()
            found.append(message.info.sequence)
    return found


@pytest.mark.processes
def test_rollouts_stay_in_order_where_some_find_no_slot(
    arena: Arena, ends: tuple[Sockets, Sockets]
):
    actor, buffer = ends
    for sequence in range(5):
        assert actor.send("buffer-0", RolloutArrived(rollout(arena, sequence), 0))
    assert arrivals(buffer, 5) == [0, 1, 2, 3, 4]
    for sequence in range(5, 8):
        assert actor.send("buffer-0", RolloutArrived(rollout(arena, sequence), 0))
    assert arrivals(buffer, 3) == [5, 6, 7]
    assert arena.num_free == 2


@pytest.mark.processes
def test_a_request_for_a_ticket_never_overtakes_the_rollout_before_it(
    arena: Arena, ends: tuple[Sockets, Sockets]
):
    """The rollout comes into the ring while frames are read: it would look lost."""
    actor, buffer = ends
    assert actor.send("buffer-0", Start(origin_ns=5))
    heard = buffer.receive(PATIENCE_S)
    assert next(heard) == ("buffer-0", Start(origin_ns=5))
    request = TicketRequested(actor="actor-0", held_version=0, last_ticket=0)
    assert actor.send("buffer-0", RolloutArrived(rollout(arena, 0), 0))
    assert actor.send("buffer-0", request)
    assert buffer._out.server is not None
    assert buffer._out.server.poll(PATIENCE_S * 1000)
    (_, first), (_, second) = heard
    assert isinstance(first, RolloutArrived)
    assert second == request


@pytest.mark.processes
def test_other_messages_are_heard_while_rollouts_keep_coming(
    arena: Arena, ends: tuple[Sockets, Sockets]
):
    actor, buffer = ends
    assert actor.send("buffer-0", Start(origin_ns=5))
    seen: list[object] = []
    deadline_s = time.monotonic() + PATIENCE_S
    while Start(origin_ns=5) not in seen and time.monotonic() < deadline_s:
        actor.send("buffer-0", RolloutArrived(rollout(arena, len(seen)), 0))
        seen += [message for _, message in buffer.receive(1.0) if isinstance(message, Start)]
    assert seen == [Start(origin_ns=5)]


@pytest.mark.processes
def test_a_buffer_that_waits_uses_no_processor(ends: tuple[Sockets, Sockets]):
    _, buffer = ends
    before_s = time.process_time()
    assert list(buffer.receive(0.5)) == []
    assert time.process_time() - before_s < 0.05


@pytest.mark.processes
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_sleeping_buffer_is_woken_by_another_process_and_gets_all_that_it_sent(tmp_path: Path):
    """The child is killed as soon as it has sent: what it sent arrives all the same."""
    before = set(os.listdir("/dev/shm"))
    arena = Arena(1, 3, LAYOUT.num_bytes)
    codec = Codec(LAYOUT, WeightsLayout(16, 7), arena=arena)
    go, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.read(go, 1)
        for sequence in range(3):
            codec.post(RolloutArrived(rollout(arena, sequence), 0), "buffer-0")
        os.kill(os.getpid(), signal.SIGKILL)
    with Sockets("buffer-0", Wiring(bind=f"ipc://{tmp_path}/s"), codec) as buffer:
        os.write(told, b"x")
        assert arrivals(buffer, 3) == [0, 1, 2]
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    os.close(go)
    os.close(told)
    assert arena.num_free == 3
    assert set(os.listdir("/dev/shm")) == before


def test_slots_are_taken_in_turn_while_they_fit_a_cache_and_else_from_the_lowest():
    small = Arena(1, 6, 64)
    first = [small.take(0) for _ in range(2)]
    at = [buffer.ctypes.data for buffer in first if buffer is not None]
    del first
    third = small.take(0)
    assert third is not None
    assert third.ctypes.data > max(at), "not the one that was free last"
    large = Arena(1, 8, 2**20)
    seen = set()
    for _ in range(20):
        buffer = large.take(0)
        assert buffer is not None
        seen.add(buffer.ctypes.data)
        del buffer
    assert len(seen) == 2, "memory is used for as many as are needed"


def test_addresses_have_numbers():
    assert (index_of("buffer-12"), index_of("coordinator")) == (12, -1)
