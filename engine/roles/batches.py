"""The batches of a learner, and their age."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from operator import mul
from typing import TypeAlias

from msgspec import UNSET

from engine.graph.cut import Cut
from engine.messages import BatchArrived, SamplesArrived
from engine.progress import Resumed
from engine.roles.commands import Command, StageAhead, Update, UpdateFromSamples
from engine.roles.events import Updated
from engine.rollout import Rollout
from engine.trace.records import Staleness
from engine.trace.summary import weighted_percentile

Batch: TypeAlias = BatchArrived | SamplesArrived


def num_env_steps(batch: Batch) -> int:
    """Env steps that this batch consumes; samples from replay were counted on insertion."""
    if isinstance(batch, SamplesArrived):
        return 0
    return sum(rollout.info.num_env_steps for rollout in batch.rollouts)


def update_with(batch: Batch, progress: float) -> Command:
    if isinstance(batch, SamplesArrived):
        return UpdateFromSamples(batch.samples, progress)
    return Update(batch.rollouts, progress)


def stage_ahead(batch: Batch) -> Command:
    return StageAhead(batch.samples if isinstance(batch, SamplesArrived) else batch.rollouts)


class ProgressCount:
    """How far a run has come, as a learner can tell: the share of its env steps.

    Args:
        limit: `stop.env_steps`.
        cut: With learners that do not share batches, each counts for all of them.
        resumed: The checkpoint that the run resumes, if any.
    """

    def __init__(self, limit: int | None, cut: Cut, resumed: Resumed | None) -> None:
        self._limit = limit
        self._groups = cut.groups
        self._is_joint = cut.is_joint
        self._before = resumed.counters.env_steps_consumed if resumed else 0

    def before(self, batch: Batch, consumed: int) -> float:
        """The share of `stop.env_steps` consumed before this batch, in [0, 1]; 0 without a limit.

        Args:
            batch: What is trained next. Env steps of replay are consumed on insertion into the
                store of one learner; learners that update together take the mean of their answers.
            consumed: Env steps from a queue, of all learners that share batches with this one.
        """
        if self._limit is None:
            return 0.0
        if isinstance(batch, SamplesArrived):
            of_all = batch.samples.info.env_steps * self._groups
        else:
            of_all = self._before + (consumed if self._is_joint else consumed * self._groups)
        return min(of_all / self._limit, 1.0)


class UpdateCount:
    """How many optimiser steps a learner had taken before each of its versions.

    Args:
        version: Its first in this run.
    """

    def __init__(self, version: int) -> None:
        self._first = version
        self._totals = array("q")
        """Optimiser steps before each version, from the first one on."""

    def note(self, before: int) -> None:
        """Takes the number of optimiser steps before the next version."""
        self._totals.append(before)

    def between(self, acted: Iterable[int], version: int) -> list[int]:
        """Optimiser steps from each version of `acted` to `version`; from the first one, if samples
        are older, as those of a resumed store."""
        totals, first = self._totals, self._first
        newest = totals[version - first]
        return [newest - totals[one - first if one > first else 0] for one in acted]


def staleness_row(
    learner: int,
    version: int,
    batch: Batch,
    event: Updated,
    updates: UpdateCount,
    began_s: float,
    now_s: float,
) -> Staleness:
    """Lag over env steps, from the oldest behaviour version of each rollout or sample.

    Args:
        learner, version: Who took the batch, and its version then.
        batch: What was trained.
        event: The update.
        updates: Of the learner, this version included.
        began_s, now_s: Start and end of training on it.
    """
    versions = event.samples_by_version
    if isinstance(batch, BatchArrived):
        versions = _steps_by_version(batch.rollouts)
    # Samples from replay are of hundreds of versions, so what is said of each is said in few words.
    steps_by_lag = {version - acted: steps for acted, steps in versions.items()}
    steps, in_steps = list(versions.values()), updates.between(versions, version)
    env_steps = sum(steps)
    age_mean_s, age_max_s = _ages_s(batch, began_s)
    return Staleness(
        t_s=now_s,
        learner=learner,
        version=version,
        env_steps=env_steps,
        lag_min=min(steps_by_lag),
        lag_mean=sum(map(mul, steps_by_lag, steps)) / max(env_steps, 1),
        lag_p95=weighted_percentile(steps_by_lag, 0.95),
        lag_max=max(steps_by_lag),
        steps_by_lag=steps_by_lag,
        age_mean_s=age_mean_s,
        age_max_s=age_max_s,
        optimizer_lag_mean=sum(map(mul, in_steps, steps)) / max(env_steps, 1),
        optimizer_lag_max=max(in_steps),
        ratio_batches=1 if event.ratios_by_lag else UNSET,
        **event.ratios_by_lag,
    )


def _steps_by_version(rollouts: Sequence[Rollout]) -> dict[int, int]:
    versions: dict[int, int] = {}
    for rollout in rollouts:
        version = rollout.info.version_min
        versions[version] = versions.get(version, 0) + rollout.info.num_env_steps
    return versions


def _ages_s(batch: Batch, now_s: float) -> tuple[float, float]:
    """Mean and highest age in seconds: of rollouts, or of samples from replay."""
    if isinstance(batch, SamplesArrived):
        info = batch.samples.info
        waited_s = now_s - info.drawn_s
        return info.age_mean_s + waited_s, info.age_max_s + waited_s
    ages_s = [now_s - rollout.info.end_s for rollout in batch.rollouts]
    return sum(ages_s) / len(ages_s), max(ages_s)
