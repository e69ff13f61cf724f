"""Shared memory under any order of steps, and with anything in it: arenas, rings, weights.

`rings` plays actors, their buffer and a learner, each with an arena object of its own on the same
memory as forked processes have, in any order, with deaths at any step. What was handed over must
come once, whole and in order, or die with its actor; in the end every slot is free. `memory` writes
anything anywhere first: then each step ends, as it should or with `WireError`.
"""

from __future__ import annotations

import copy
import mmap
from collections import deque
from collections.abc import Callable
from pathlib import Path

import numpy as np
from msgspec.structs import replace

from engine.errors import WireError
from engine.messages import RolloutArrived
from engine.rollout import Field, Layout, Rollout, RolloutInfo
from engine.testing import make_rollout
from engine.wire.arena import Arena, Bytes
from engine.wire.codec import Codec, WeightsLayout
from engine.wire.header import HEADER_BYTES
from engine.wire.spsc_ring import FRAME
from engine.wire.weights_buffer import SharedWeights
from tests.fuzz.fuzz_inputs import FRAME_BYTES, NUMBERS, Choices, bounded

LAYOUT = Layout((Field("reward", "float32"),), 2, 3)
WEIGHTS = WeightsLayout(num_bytes=24, digest=0xFEED)
ACTORS, SLOTS = 2, 3
BUFFER = "buffer-0"


def _new() -> Arena:
    shared_weights = SharedWeights(1, WEIGHTS.num_bytes)
    return Arena(ACTORS, SLOTS, LAYOUT.num_bytes, (0,) * ACTORS, shared_weights)


def _forked(arena: Arena) -> Arena:
    """The arena as another process has it: the same memory, leases of its own."""
    other = copy.copy(arena)
    other._leases = {}
    return other


class _Actor:
    """One incarnation of an actor after another."""

    def __init__(self, number: int, arena: Arena) -> None:
        self.number, self.epoch, self.sequence = number, 0, 0
        self._whole = arena
        self._graves: list[tuple[Arena, Bytes | None]] = []
        self.begin()

    def begin(self) -> None:
        """What a new incarnation does first."""
        self.arena = _forked(self._whole)
        self.codec = Codec(LAYOUT, WEIGHTS, arena=self.arena)
        self.arena.reclaim(self.number)
        self.writing: Bytes | None = None

    def die(self) -> None:
        """Nothing of it is released: its leases end with its memory, unseen by the others."""
        self._graves.append((self.arena, self.writing))
        self.epoch += 1

    def info(self) -> RolloutInfo:
        info = make_rollout(ticket=self.sequence, version=1, env_steps=6, layout=LAYOUT).info
        return replace(info, actor=self.number, epoch=self.epoch, sequence=self.sequence)


class Rings:
    """All of them, and what must come of what they did."""

    def __init__(self) -> None:
        self.arena = _new()
        self.actors = [_Actor(number, self.arena) for number in range(ACTORS)]
        self.buffer = _forked(self.arena)
        self.learner = _forked(self.arena)
        inbox = self.buffer.rings.inbox((BUFFER,))
        assert inbox is not None
        self.inbox = inbox
        self.codec = Codec(LAYOUT, WEIGHTS, arena=self.buffer)
        self.sent: list[deque[tuple[int, int]]] = [deque() for _ in range(ACTORS)]
        """Of each actor: incarnation and number of what lies in its ring."""
        self.frames: list[deque[tuple[int, int]]] = [deque() for _ in range(ACTORS)]
        self.lost_epochs = [-1] * ACTORS
        self.held: deque[tuple[Rollout, int]] = deque()
        self.passed: deque[tuple[int, int, int, int]] = deque()
        self.trained: deque[Bytes] = deque()

    def take(self, actor: _Actor) -> None:
        if actor.writing is None:
            actor.writing = actor.arena.take(actor.number, actor.epoch)

    def send(self, actor: _Actor) -> None:
        """A slot by the ring; without one, a frame and its placeholder."""
        buffer = actor.writing
        ring = actor.arena.rings.of(actor.number)
        assert ring is not None
        if len(self.sent[actor.number]) + len(self.frames[actor.number]) >= 3 * SLOTS:
            return  # the protocol's tickets see to that
        if buffer is None:
            ring.put(actor.epoch, FRAME)
            self.sent[actor.number].append((FRAME, actor.epoch))
            self.frames[actor.number].append((actor.epoch, actor.sequence))
        else:
            buffer[:] = self._mark(actor.number, actor.epoch, actor.sequence)
            info = actor.info()
            actor.writing = None
            message = Rollout(info, buffer)
            del buffer
            assert actor.codec.post(RolloutArrived(message, 1), BUFFER)
            self.sent[actor.number].append((actor.sequence, actor.epoch))
        actor.sequence += 1

    def _mark(self, number: int, epoch: int, sequence: int) -> int:
        return (number * 101 + epoch * 37 + sequence * 7) % 251

    def die(self, actor: _Actor) -> None:
        actor.die()
        actor.sequence = 0
        actor.begin()

    def lose(self, actor: _Actor) -> None:
        """The buffer hears that all earlier incarnations are lost."""
        epoch = actor.epoch - 1
        self.buffer.reclaim_sent(actor.number, epoch)
        self.lost_epochs[actor.number] = max(self.lost_epochs[actor.number], epoch)
        line = self.sent[actor.number]
        while line and line[0][1] <= epoch:
            line.popleft()
        kept = [item for item in self.frames[actor.number] if item[0] > epoch]
        self.frames[actor.number] = deque(kept)

    def receive(self) -> None:
        for to, epoch, slot in self.inbox.take():
            assert to == BUFFER
            self._enter(epoch, slot)

    def _enter(self, epoch: int, slot: int) -> None:
        message = self.codec.take_in(epoch, slot)
        info, line = message.rollout.info, self.sent[message.rollout.info.actor]
        assert line, "nothing was sent"
        assert line.popleft() == (info.sequence, info.epoch), "out of order, twice or lost"
        assert info.epoch == epoch > self.lost_epochs[info.actor]
        mark = self._mark(info.actor, info.epoch, info.sequence)
        assert (message.rollout.buffer == mark).all(), "written over"
        self.held.append((message.rollout, mark))

    def frame(self, actor: _Actor) -> None:
        """The next frame of an actor comes, after what lies before its placeholder."""
        if not self.frames[actor.number]:
            return
        for _, epoch, slot in self.inbox.take_before_placeholder(actor.number):
            self._enter(epoch, slot)
        line = self.sent[actor.number]
        assert line, "its placeholder is gone"
        assert line.popleft()[0] == FRAME, "it came before what was sent earlier"
        self.frames[actor.number].popleft()

    def hand_on(self) -> None:
        if self.held:
            rollout, mark = self.held.popleft()
            info = rollout.info
            slot = self.buffer.hand_over(rollout.buffer)
            assert slot is not None
            self.passed.append((slot, info.epoch, mark, info.actor))

    def train(self) -> None:
        if self.passed:
            slot, epoch, mark, _ = self.passed.popleft()
            buffer = self.learner.attach(slot, epoch)
            assert (buffer == mark).all(), "written over"
            self.trained.append(buffer)

    def release(self) -> None:
        if self.trained:
            self.trained.popleft()

    def end(self) -> None:
        """Everybody goes on until nothing is left; then every slot is free."""
        for actor in self.actors:
            self.die(actor)
            self.lose(actor)
        self.receive()
        assert not any(self.sent), "lost"
        while self.held:
            self.hand_on()
        while self.passed:
            self.train()
        self.trained.clear()
        assert self.arena.num_free == ACTORS * SLOTS


def play_rings(data: bytes, scratch: Path) -> None:
    """Any order of steps, with deaths."""
    choices, rings = Choices(data), Rings()
    steps: tuple[Callable[[], None] | Callable[[_Actor], None], ...] = (
        rings.take, rings.send, rings.take, rings.send, rings.die, rings.lose, rings.frame,
        rings.receive, rings.hand_on, rings.train, rings.release,
    )  # fmt: skip
    of_actor = 7
    while choices.has_more:
        chosen = choices.below(len(steps))
        if chosen < of_actor:
            steps[chosen](rings.actors[choices.below(ACTORS)])  # type: ignore[call-arg]
        else:
            steps[chosen]()  # type: ignore[call-arg]
    rings.end()


def _spoil(memory: mmap.mmap, limit: int, choices: Choices) -> None:
    number = NUMBERS[choices.below(len(NUMBERS))]
    at = choices.below(min(limit, 65536)) % (len(memory) - len(number))
    if choices.below(2):
        at -= at % len(number)
    memory[at : at + len(number)] = number


def read_spoilt_memory(data: bytes, scratch: Path) -> None:
    """Whatever lies in shared memory, each step ends as it should or is refused."""
    choices, arena = Choices(data), _new()
    assert arena.shared_weights is not None
    codec, shared_weights = Codec(LAYOUT, WEIGHTS, arena=arena), arena.shared_weights
    inbox, ring = arena.rings.inbox((BUFFER,)), arena.rings.of(0)
    assert inbox is not None
    assert ring is not None
    weights = np.zeros(WEIGHTS.num_bytes, np.uint8)

    def take_in() -> None:
        for _, epoch, slot in inbox.take():
            codec.take_in(epoch, slot)

    def before_mark() -> None:
        for _, epoch, slot in inbox.take_before_placeholder(choices.below(4)):
            codec.take_in(epoch, slot)

    def sleep() -> None:
        inbox.fall_asleep()
        inbox.wake_up()

    def write() -> None:
        buffer = arena.take(choices.below(3), choices.below(3))
        if buffer is not None:
            slot = arena.hand_over(buffer)
            assert slot is not None
            ring.put(choices.below(3), slot)

    memories = (
        (arena.memory, ACTORS * SLOTS * 5 + HEADER_BYTES),
        (arena.rings._memory, len(arena.rings._memory)),
        (shared_weights._memory, len(shared_weights._memory)),
    )
    steps: tuple[Callable[[], object], ...] = (
        take_in, before_mark, sleep, write,
        lambda: ring.put(choices.below(3), choices.below(8)),
        lambda: ring.forget(choices.below(3)),
        lambda: arena.reclaim(choices.below(4)),
        lambda: arena.reclaim_sent(choices.below(4), choices.below(3)),
        lambda: shared_weights.publish(0, choices.below(8), weights),
        lambda: shared_weights.read(choices.below(2), choices.below(8)),
    )  # fmt: skip
    with bounded((2**20, FRAME_BYTES[1]), len(data)):
        while choices.has_more:
            if choices.below(2):
                _spoil(*memories[choices.below(len(memories))], choices)
                continue
            try:
                steps[choices.below(len(steps))]()
            except WireError:
                continue
