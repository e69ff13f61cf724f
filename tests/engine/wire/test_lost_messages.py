"""Connections that break at any moment: whoever waits for an answer asks again, and counts once."""

from __future__ import annotations

import numpy as np
import pytest

from engine.executors.reducer import Accumulation
from engine.graph.cut import Cut
from engine.messages import BatchArrived, BatchRequested, BatchSent, Start, StepTaken
from engine.replay.limiter import RateLimiter
from engine.roles.actor import ActorRole
from engine.roles.buffer import BufferRole
from engine.roles.commands import (
    BlendModel,
    CollectRollout,
    Command,
    DrawSamples,
    ExportModel,
    ExportWeights,
    LoadWeights,
    MergeModel,
    Role,
    Send,
    StepEnvironment,
    TakeStep,
    Update,
    UpdateFromSamples,
)
from engine.roles.environment import EnvironmentRole
from engine.roles.events import (
    EnvironmentStepped,
    Event,
    ModelExported,
    ModelsMerged,
    RolloutCollected,
    SamplesDrawn,
    StepWanted,
    Updated,
    WeightsExported,
)
from engine.roles.learner import LearnerRole
from engine.roles.reducer import ReducerRole
from engine.roles.replay_buffer import ReplayBufferRole
from engine.roles.retries import FIRST_PATIENCE_S, ROUND_TRIPS, BatchRequests, Offers
from engine.rollout import Samples, SamplesInfo, Weights
from engine.spec import ReduceSpec, StalenessSpec, StopSpec
from engine.testing import make_experiment, make_rollout, make_weights
from engine.trace.records import Event as TraceEvent
from engine.trace.records import Ledger, Replay
from tests.helpers.engine.lossy_wire import Wire

STEPS = 8
"""Of a rollout; two make a batch."""
BOUND = 2
UPDATES = 60
ENDLESS = make_experiment(stop=StopSpec(env_steps=None))
SAMPLES = Samples(
    SamplesInfo(env_steps=16, drawn_s=0.0, age_mean_s=0.0, age_max_s=0.0), np.zeros(8, np.uint8)
)


class Bodies:
    """Two actors with environments of their own elsewhere, and a learner, who take no time."""

    def __init__(self) -> None:
        self.version = 0
        self.acts_with = {"actor-0": 0, "actor-1": 0}
        self.tickets = {"actor-0": -1, "actor-1": -1}
        self.sequences = {"actor-0": 0, "actor-1": 0}
        self.asked = {"actor-0": 0, "actor-1": 0}
        self.stepped: dict[str, list[int]] = {"environment-0": [], "environment-1": []}

    def perform(self, name: str, command: Command) -> list[Event]:
        match command:
            case LoadWeights(weights=weights):
                self.acts_with[name] = weights.version
            case CollectRollout(ticket=ticket):
                self.tickets[name] = ticket
                return [self.want_step(name)]
            case StepEnvironment(number=number):
                self.stepped[name].append(number)
                return [EnvironmentStepped(StepTaken(number=number, observation=b""))]
            case TakeStep(taken=taken):
                is_complete = taken.number % STEPS == 0
                return [self.collected(name) if is_complete else self.want_step(name)]
            case ExportWeights(version=version):
                return [WeightsExported(make_weights(version))]
            case Update(rollouts=rollouts):
                assert all(self.version - r.info.version_min <= BOUND for r in rollouts)
                return [self.updated()]
            case UpdateFromSamples():
                return [self.updated({self.version: 16})]
            case DrawSamples():
                return [SamplesDrawn(SAMPLES)]
        return []

    def want_step(self, name: str) -> StepWanted:
        self.asked[name] += 1
        return StepWanted(self.asked[name], b"action")

    def collected(self, name: str) -> RolloutCollected:
        sequence, self.sequences[name] = self.sequences[name], self.sequences[name] + 1
        rollout = make_rollout(
            actor=int(name[-1]),
            sequence=sequence,
            ticket=self.tickets[name],
            version=self.acts_with[name],
            env_steps=STEPS,
        )
        return RolloutCollected(rollout, ())

    def updated(self, by_version: dict[int, int] | None = None) -> Updated:
        self.version += 1
        weights = make_weights(self.version)
        return Updated(weights, 16, self.version, 0.1, {}, samples_by_version=by_version or {})


def trained(buffer: Role, seed: int, breaks: float) -> tuple[Wire, Bodies]:
    """A run whose roles are all on hosts of their own."""
    executors = Bodies()
    roles: dict[str, Role] = {"buffer-0": buffer, "learner-0": LearnerRole(0, ENDLESS, "buffer-0")}
    for number in range(2):
        roles[f"actor-{number}"] = ActorRole(number, 0, "buffer-0", "learner-0")
        roles[f"environment-{number}"] = EnvironmentRole(number, [f"actor-{number}"])
    wire = Wire(roles, executors.perform, seed, breaks)
    for name in roles:
        wire.handle(name, Start(origin_ns=0))
    wire.run(lambda: executors.version >= UPDATES)
    return wire, executors


@pytest.mark.parametrize("mode", ["block", "drop"])
@pytest.mark.parametrize("seed", range(12))
def test_a_queue_gets_on_within_its_bound_and_its_books_balance(mode: str, seed: int):
    buffer = BufferRole(0, StalenessSpec(mode=mode, max_lag=BOUND), 2)
    wire, executors = trained(buffer, seed, breaks=0.02)
    assert wire.num_lost > 10
    for row in wire.records:
        if isinstance(row, Ledger):
            assert row.collected == row.consumed + row.dropped + row.in_flight, row
            assert row.in_flight >= 0, row
    for taken in executors.stepped.values():
        assert taken == list(range(1, len(taken) + 1)), "each step once, in order"


@pytest.mark.parametrize("seed", range(6))
def test_a_replay_store_gets_on_and_holds_its_ratio(seed: int):
    limiter = RateLimiter(ratio=2.0, min_size=16, batch_samples=16, rollout_steps=8, tolerance=64)
    wire, _ = trained(ReplayBufferRole(0, limiter, 1000, None), seed, breaks=0.05)
    assert wire.num_lost > 10
    last = [row for row in wire.records if isinstance(row, Replay)][-1]
    assert 16 * UPDATES <= last.samples_total <= 16 * (UPDATES + 2), "a lost batch counts no more"


def test_without_a_break_nothing_is_asked_twice():
    wire, executors = trained(BufferRole(0, StalenessSpec(max_lag=BOUND), 2), 0, breaks=0.0)
    assert wire.now_s == 0.0, "no timer ever fired"
    assert not [row for row in wire.records if isinstance(row, TraceEvent)]
    assert executors.version == UPDATES


class Groups:
    """Learners that each raise an own number by one an update, which takes a second."""

    def __init__(self, count: int) -> None:
        self.models = np.zeros((count, count), np.float32)
        self.offered = self.models.copy()
        self.versions = [0] * count
        self.server = Accumulation(np.zeros(count, np.float32))
        self.merged: list[tuple[int, int]] = []
        """Group and version of every model that was merged."""
        self.wire: Wire

    def perform(self, name: str, command: Command) -> list[Event]:
        group = int(name[-1])
        match command:
            case ExportWeights(version=version):
                return [WeightsExported(make_weights(version))]
            case Update():
                self.wire.now_s += 1.0
                self.versions[group] += 1
                self.models[group, group] += 1
                weights = make_weights(self.versions[group])
                return [Updated(weights, 16, self.versions[group], 0.1, {})]
            case ExportModel():
                self.offered[group] = self.models[group]
                model = self.models[group].copy().view(np.uint8)
                return [ModelExported(Weights(self.versions[group], model))]
            case MergeModel(group=group, weights=weights):
                model = weights.buffer.view(np.float32)
                told = self.server.merge(group, model, {}, has_answer=command.has_answer)
                assert told[group] == weights.version, "no update is missing and none counts twice"
                self.merged.append((group, weights.version))
                return [ModelsMerged(group, Weights(weights.version, told.copy().view(np.uint8)))]
            case BlendModel(merged=merged):
                self.models[group] += merged.buffer.view(np.float32) - self.offered[group]
        return []


class EndlessBuffer:
    """Always has a batch."""

    def __init__(self, learner: str) -> None:
        self._learner = learner

    def handle(self, event: Event, now_s: float) -> list[Command]:
        if not isinstance(event, BatchRequested):
            return []
        rollout = make_rollout(version=event.batch)
        return [Send(self._learner, BatchArrived(event.batch, (rollout,)))]


@pytest.mark.parametrize("seed", range(6))
def test_every_group_goes_on_merging_and_each_update_counts_once(seed: int):
    groups = Groups(2)
    cut = Cut(policy="tianji", actors=2, groups=2, merge="accumulate", staleness=StalenessSpec())
    roles: dict[str, Role] = {"reducer-0": ReducerRole(0, ReduceSpec())}
    for number in range(2):
        learner, buffer = f"learner-{number}", f"buffer-{number}"
        roles[learner] = LearnerRole(number, ENDLESS, buffer, cut)
        roles[buffer] = EndlessBuffer(learner)
    wire = groups.wire = Wire(
        roles, groups.perform, seed, breaks=0.2, keeps=lambda a, b: "reducer-0" not in (a, b)
    )
    for name in roles:
        wire.handle(name, Start(origin_ns=0))
    wire.run(lambda: min(groups.versions) >= 800)
    assert wire.num_lost > 10
    for number in range(2):
        merged = [version for group, version in groups.merged if group == number]
        assert merged[-1] > 600, "it still takes part in the end"
        assert len(merged) > 10


def test_a_reducer_that_is_slow_is_given_more_and_more_time():
    offers = Offers(every_updates=1, version=0)
    assert offers.is_due(1, 0.0)
    assert not offers.is_due(2, FIRST_PATIENCE_S - 1)
    assert offers.is_due(3, FIRST_PATIENCE_S), "nothing came: the answer may be lost"
    assert not offers.take(1, FIRST_PATIENCE_S + 1), "too late: another offer is on its way"
    assert not offers.is_due(4, 3 * FIRST_PATIENCE_S - 1)
    assert offers.answered == -1
    assert offers.take(3, 2 * FIRST_PATIENCE_S)
    assert offers.answered == 3
    assert offers.is_due(4, 2 * FIRST_PATIENCE_S), "at once: nothing is under way"
    assert not offers.is_due(5, 2 * FIRST_PATIENCE_S + ROUND_TRIPS * FIRST_PATIENCE_S - 1)


def test_a_batch_is_taken_for_lost_once_and_only_if_it_was_sent():
    requests = BatchRequests("learner-0", first=4)
    assert requests.again(0) is None
    first = requests.new(consumed_env_steps=8)
    assert (first.batch, first.attempt) == (4, 0)
    assert requests.again(8) == first
    sent_word = BatchSent(batch=4, attempt=0)
    missed = requests.missed(sent_word, 8)
    assert missed is not None
    assert (missed.batch, missed.attempt) == (4, 1)
    assert requests.missed(sent_word, 8) is None, "said twice"
    assert requests.arrived(4)
    assert not requests.arrived(4), "it came twice"
    assert requests.missed(BatchSent(batch=4, attempt=1), 8) is None, "it is here"
