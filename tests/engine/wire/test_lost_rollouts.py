"""Rollouts that never reach their buffer, or come too late: the run gets on, and the books balance.

Real actors and a real buffer; between them a wire that loses some rollouts and lets others be
overtaken, as it can be where a connection is made anew.
"""

from __future__ import annotations

import random
from collections import deque

import pytest

from engine.messages import (
    COORDINATOR,
    BatchArrived,
    BatchRequested,
    Counters,
    RolloutArrived,
    Start,
    Stop,
    Stopped,
    WeightsArrived,
)
from engine.roles.actor import ActorRole
from engine.roles.buffer import BufferRole
from engine.roles.commands import CollectRollout, LoadWeights, Send
from engine.roles.events import Event, RolloutAbandoned, RolloutCollected, TimerFired
from engine.spec import StalenessSpec
from engine.testing import make_rollout, make_weights

STEPS = 8
BOUND = 1
EVENTS_PER_TURN = 60


class System:
    """Actors, a bad wire, a buffer of two rollouts a batch, a learner that takes no time.

    Args:
        mode: Of the buffer.
        num_actors: How many.
        choose: Decides what becomes of each rollout.
        lost, late: Probabilities.
    """

    def __init__(
        self, mode: str, num_actors: int, choose: random.Random, lost: float, late: float
    ) -> None:
        self.choose, self.lost, self.late = choose, lost, late
        self.version = 0
        self.roles: dict[str, ActorRole | BufferRole] = {
            f"actor-{i}": ActorRole(i, 0, "buffer-0", "learner-0") for i in range(num_actors)
        }
        self.actors = list(self.roles)
        self.roles["buffer-0"] = BufferRole(0, StalenessSpec(mode=mode, max_lag=BOUND), 2)
        self.acts_with = dict.fromkeys(self.actors, 0)
        self.sequences = dict.fromkeys(self.actors, 0)
        self.inbox: deque[tuple[str, Event]] = deque(
            (name, Start(origin_ns=0)) for name in self.roles
        )
        self.delayed: list[RolloutArrived] = []
        self.last_words: dict[str, Counters] = {}
        self.publish()

    def publish(self) -> None:
        """The learner has new weights and wants its next batch."""
        for name in self.actors:
            self.inbox.append((name, WeightsArrived(make_weights(self.version))))
        request = BatchRequested(
            learner="learner-0", batch=self.version, consumed_env_steps=self.consumed
        )
        self.inbox.append(("buffer-0", request))

    @property
    def consumed(self) -> int:
        return 2 * STEPS * self.version

    def turn(self) -> None:
        """All timers fire, and what follows from it happens; what was overtaken may come."""
        self.inbox += [(name, TimerFired()) for name in self.actors]
        for _ in range(EVENTS_PER_TURN):
            if self.delayed and self.choose.random() < 0.1:
                self.inbox.append(("buffer-0", self.delayed.pop(0)))
            if self.inbox:
                self.handle(*self.inbox.popleft())

    def handle(self, name: str, event: Event) -> None:
        for command in self.roles[name].handle(event, 0.0):
            match command:
                case LoadWeights(weights=weights):
                    self.acts_with[name] = weights.version
                case CollectRollout(ticket=ticket):
                    self.inbox.append((name, self.collect(name, ticket)))
                case Send(message=BatchArrived() as batch):
                    self.train(batch)
                case Send(to=to, message=Stopped(counters=counters)) if to == COORDINATOR:
                    self.last_words[name] = counters
                case Send(message=RolloutArrived() as arrival):
                    self.transmit(arrival)
                case Send(to=to, message=message) if to in self.roles:
                    self.inbox.append((to, message))

    def collect(self, name: str, ticket: int) -> RolloutCollected:
        sequence, self.sequences[name] = self.sequences[name], self.sequences[name] + 1
        rollout = make_rollout(
            actor=self.actors.index(name),
            sequence=sequence,
            ticket=ticket,
            version=self.acts_with[name],
            env_steps=STEPS,
        )
        return RolloutCollected(rollout, ())

    def train(self, batch: BatchArrived) -> None:
        for rollout in batch.rollouts:
            assert self.version - rollout.info.version_min <= BOUND
        self.version += 1
        self.publish()

    def transmit(self, arrival: RolloutArrived) -> None:
        chance = self.choose.random()
        if chance < self.late:
            self.delayed.append(arrival)
        elif chance >= self.late + self.lost:
            self.inbox.append(("buffer-0", arrival))

    def stop(self) -> None:
        """As the coordinator stops a run; what is still delayed comes too late for the books."""
        self.inbox.clear()
        for name in self.actors:
            self.handle(name, RolloutAbandoned(0, 0.0, ()))
        words = self.last_words
        stop = Stop(
            sent_rollouts={name: words[name].sent_rollouts for name in self.actors},
            sent_env_steps={name: words[name].collected for name in self.actors},
            consumed_env_steps=self.consumed,
        )
        self.handle("buffer-0", stop)
        self.handle("buffer-0", TimerFired())
        for arrival in self.delayed:
            self.handle("buffer-0", arrival)


@pytest.mark.parametrize("mode", ["block", "drop"])
@pytest.mark.parametrize("seed", range(20))
def test_the_run_gets_on_and_the_books_balance(mode: str, seed: int):
    choose = random.Random(seed)
    lost, late = choose.uniform(0.0, 0.3), choose.uniform(0.0, 0.3)
    system = System(mode, choose.randint(1, 4), choose, lost, late)
    for _ in range(4):
        before = system.version
        for _ in range(15):
            system.turn()
        assert system.version > before, "nothing was trained any more"
    system.stop()
    known = system.last_words["buffer-0"]
    collected = sum(system.last_words[name].collected for name in system.actors)
    assert collected == system.consumed + known.queued + known.staged + known.dropped
