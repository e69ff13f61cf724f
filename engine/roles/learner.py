"""The learner: trains on the next batch as soon as it is there and offers the result to all actors.

One batch is being trained, the next one may be staged; so the buffer's answer never sits on the
critical path. Each update raises the weights version by one.

Where there are several learners, either a reducer merges their models (a learner offers its own
after an update if the last one was answered, trains on, and blends the answer in), or they take
every update together until one of them withdraws.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from engine.graph.cut import Cut, single_cut
from engine.messages import (
    COORDINATOR,
    BatchArrived,
    BatchRequested,
    Counters,
    Exit,
    ModelMerged,
    ModelOffered,
    PrioritiesArrived,
    Report,
    SamplesArrived,
    Start,
    StepLimitReached,
    Stop,
    Stopped,
    WeightsArrived,
    WeightsRequested,
)
from engine.roles.commands import (
    BlendModel,
    Command,
    ExportModel,
    ExportWeights,
    Quit,
    SaveCheckpoint,
    Send,
    Update,
    UpdateFromSamples,
    Withdraw,
)
from engine.roles.events import (
    Event,
    ModelExported,
    Noted,
    TimerFired,
    Updated,
    UpdateDeclined,
    WeightsExported,
    Withdrawn,
)
from engine.rollout import Rollout, Weights
from engine.spec import Experiment
from engine.trace.records import Consumption, Record, Staleness, WeightsPublished
from engine.trace.records import Event as TraceEvent
from engine.trace.summary import weighted_percentile

REDUCER = "reducer-0"


class LearnerRole:
    """Decides for one learner.

    Args:
        index: Its number.
        experiment: Stop and checkpoint rules.
        buffer: Address that it takes batches from.
        cut: How many learners there are, and how they learn from each other.
    """

    def __init__(
        self, index: int, experiment: Experiment, buffer: str, cut: Cut | None = None
    ) -> None:
        cut = cut or single_cut(experiment)
        self.address = f"learner-{index}"
        self._index = index
        self._buffer = buffer
        self._step_limit = experiment.stop.env_steps if cut.groups == 1 else None
        """With several learners, only the coordinator knows what all of them have consumed."""
        self._has_reducer = cut.merge in ("average", "accumulate")
        self._offer_every = experiment.reduce.every_updates
        self._next_offer = self._offer_every
        self._awaits_merge = False
        self._is_joint = self._takes_part = cut.is_joint
        self._checkpoint_every_s = experiment.checkpoint.every_s
        self._last_checkpoint_s = 0.0
        self._version = 0
        self._weights: Weights | None = None
        self._subscribers: set[str] = set()
        self._num_requested = 0
        self._staged: _Batch | None = None
        self._training: _Batch | None = None
        self._idle_since_s = 0.0
        self._started_update_s = 0.0
        self._wait_s = 0.0
        self._consumed = 0
        self._trained = 0
        self._updates = 0
        self._is_stopping = False

    def handle(self, event: Event, now_s: float) -> list[Command]:
        match event:
            case Start():
                self._idle_since_s = self._last_checkpoint_s = now_s
                return [ExportWeights(self._version), *self._request_next()]
            case WeightsExported(weights=weights):
                return [*self._publish(weights), self._report(self._published_row(now_s))]
            case WeightsRequested():
                return self._subscribed(event)
            case BatchArrived() | SamplesArrived():
                self._staged = event
                return self._train_if_idle(now_s)
            case Updated():
                return self._updated(event, now_s)
            case UpdateDeclined():
                self._training, self._takes_part = None, False
                return self._finish() if self._is_stopping else []
            case ModelExported(weights=weights):
                return [Send(REDUCER, ModelOffered(self._index, weights))]
            case ModelMerged(weights=weights):
                self._awaits_merge = False
                return [BlendModel(weights)]
            case Noted(kind=kind, detail=detail):
                row = TraceEvent(t_s=now_s, kind=kind, host="", role=self.address, detail=detail)
                return [self._report(row)]
            case Stop():
                self._is_stopping = True
                return self._withdraw() if self._training is None else []
            case Withdrawn():
                self._takes_part = False
                return self._finish()
            case TimerFired():
                return []
            case Exit():
                return [Quit()]
        raise RuntimeError(f"{self.address} cannot handle {type(event).__name__}")

    def _request_next(self) -> list[Command]:
        """Asks for the next batch, unless the run will have had enough without it."""
        planned = self._consumed
        if self._training is not None:
            planned += _num_env_steps(self._training)
        if self._is_stopping or (self._step_limit is not None and planned >= self._step_limit):
            return []
        request = BatchRequested(
            learner=self.address, batch=self._num_requested, consumed_env_steps=self._consumed
        )
        self._num_requested += 1
        return [Send(self._buffer, request)]

    def _subscribed(self, event: WeightsRequested) -> list[Command]:
        self._subscribers.add(event.actor)
        if self._weights is None or self._weights.version <= event.held_version:
            return []
        return [Send(event.actor, WeightsArrived(self._weights))]

    def _publish(self, weights: Weights) -> list[Command]:
        self._weights = weights
        return [Send(actor, WeightsArrived(weights)) for actor in sorted(self._subscribers)]

    def _published_row(self, now_s: float) -> WeightsPublished:
        assert self._weights is not None
        return WeightsPublished(
            t_s=now_s,
            learner=self._index,
            version=self._weights.version,
            num_bytes=self._weights.num_bytes,
            num_subscribers=len(self._subscribers),
        )

    def _report(self, *records: Record) -> Command:
        return Send(COORDINATOR, Report(address=self.address, records=list(records)))

    def _train_if_idle(self, now_s: float) -> list[Command]:
        if self._staged is None or self._training is not None or self._is_stopping:
            return []
        if self._is_joint and not self._takes_part:
            return []
        self._training, self._staged = self._staged, None
        self._wait_s = now_s - self._idle_since_s
        self._started_update_s = now_s
        return [*self._request_next(), _update_with(self._training)]

    def _updated(self, event: Updated, now_s: float) -> list[Command]:
        assert self._training is not None
        batch, self._training = self._training, None
        env_steps = _num_env_steps(batch)
        self._consumed += env_steps
        self._trained += event.samples_trained
        self._updates = event.num_updates
        rows = (
            self._consumption(event, env_steps, now_s),
            self._staleness(batch, event, now_s),
        )
        self._version = event.weights.version
        self._idle_since_s = now_s
        commands = self._publish(event.weights)
        if event.priorities is not None:
            commands.append(Send(self._buffer, PrioritiesArrived(event.priorities)))
        commands.append(self._report(*rows, self._published_row(now_s)))
        if self._step_limit is not None and self._consumed >= self._step_limit:
            commands.append(Send(COORDINATOR, StepLimitReached()))
        if self._is_stopping:
            return [*commands, *self._withdraw()]
        commands += self._offer_if_due()
        return [*commands, *self._checkpoint_if_due(now_s), *self._train_if_idle(now_s)]

    def _offer_if_due(self) -> list[Command]:
        if not self._has_reducer or self._awaits_merge or self._version < self._next_offer:
            return []
        self._next_offer = self._version + self._offer_every
        self._awaits_merge = True
        return [ExportModel()]

    def _withdraw(self) -> list[Command]:
        """Learners that update together must all know that this one will not."""
        return [Withdraw()] if self._takes_part else self._finish()

    def _consumption(self, event: Updated, env_steps: int, now_s: float) -> Consumption:
        return Consumption(
            t_s=now_s,
            learner=self._index,
            version=self._version,
            env_steps=env_steps,
            env_steps_total=self._consumed,
            samples_trained=event.samples_trained,
            samples_trained_total=self._trained,
            updates_total=event.num_updates,
            wait_s=self._wait_s,
            update_s=event.update_s,
            metrics=event.metrics,
        )

    def _staleness(self, batch: _Batch, event: Updated, now_s: float) -> Staleness:
        """Lag over env steps, from the oldest behaviour version of each rollout or sample."""
        versions = event.samples_by_version
        if isinstance(batch, BatchArrived):
            versions = _steps_by_version(batch.rollouts)
        steps_by_lag = {self._version - version: steps for version, steps in versions.items()}
        env_steps = sum(steps_by_lag.values())
        age_mean_s, age_max_s = _ages_s(batch, self._started_update_s)
        return Staleness(
            t_s=now_s,
            learner=self._index,
            version=self._version,
            env_steps=env_steps,
            lag_min=min(steps_by_lag),
            lag_mean=sum(lag * steps for lag, steps in steps_by_lag.items()) / max(env_steps, 1),
            lag_p95=weighted_percentile(steps_by_lag, 0.95),
            lag_max=max(steps_by_lag),
            steps_by_lag=steps_by_lag,
            age_mean_s=age_mean_s,
            age_max_s=age_max_s,
        )

    def _checkpoint_if_due(self, now_s: float) -> list[Command]:
        every_s = self._checkpoint_every_s
        if every_s is None or now_s - self._last_checkpoint_s < every_s:
            return []
        self._last_checkpoint_s = now_s
        return [self._checkpoint()]

    def _checkpoint(self) -> Command:
        counters = {
            "env_steps_consumed": self._consumed,
            "samples_trained": self._trained,
            "updates": self._updates,
        }
        return SaveCheckpoint(self._version, counters)

    def _finish(self) -> list[Command]:
        counters = Counters(consumed=self._consumed)
        return [
            self._checkpoint(),
            Send(COORDINATOR, Stopped(address=self.address, counters=counters)),
        ]


_Batch: TypeAlias = BatchArrived | SamplesArrived


def _num_env_steps(batch: _Batch) -> int:
    """Those that this batch consumes; samples from replay were counted when they went in."""
    if isinstance(batch, SamplesArrived):
        return 0
    return sum(rollout.info.num_env_steps for rollout in batch.rollouts)


def _update_with(batch: _Batch) -> Command:
    if isinstance(batch, SamplesArrived):
        return UpdateFromSamples(batch.samples)
    return Update(batch.rollouts)


def _steps_by_version(rollouts: Sequence[Rollout]) -> dict[int, int]:
    versions: dict[int, int] = {}
    for rollout in rollouts:
        version = rollout.info.version_min
        versions[version] = versions.get(version, 0) + rollout.info.num_env_steps
    return versions


def _ages_s(batch: _Batch, now_s: float) -> tuple[float, float]:
    """Mean and highest age in seconds: of rollouts, or of samples from replay."""
    if isinstance(batch, SamplesArrived):
        info = batch.samples.info
        waited_s = now_s - info.drawn_s
        return info.age_mean_s + waited_s, info.age_max_s + waited_s
    ages_s = [now_s - rollout.info.end_s for rollout in batch.rollouts]
    return sum(ages_s) / len(ages_s), max(ages_s)
