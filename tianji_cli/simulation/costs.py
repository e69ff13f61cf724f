"""What the work of a run costs: durations, and how much of them a core is used."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise

import msgspec

MOST_VALUES = 200
"""Quantiles that a distribution is kept as."""


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """The duration of some work as it was measured.

    Attributes:
        walls_s: Equally likely durations, in seconds, the shortest first.
        share: Of a duration, the part in which a core is used, 0 to 1.
    """

    walls_s: tuple[float, ...]
    share: float = 1.0

    @property
    def mean_s(self) -> float:
        return sum(self.walls_s) / len(self.walls_s)

    def draw_s(self, dice: random.Random) -> float:
        """One duration."""
        return self.walls_s[int(dice.random() * len(self.walls_s))]

    def times(self, factor: float) -> Cost:
        """The cost of so many times the work."""
        return msgspec.structs.replace(self, walls_s=tuple(wall * factor for wall in self.walls_s))

    def changed(self, latency_s: float, new_latency_s: float, work: float) -> Cost:
        """The cost with another latency, and of so many times the work apart from that.

        Args:
            latency_s: The part of every duration that was waited for.
            new_latency_s: What is waited for instead.
            work: Factor of the rest.
        """
        busy_s = self.share * self.mean_s * work
        walls = tuple(max(w - latency_s, 0.0) * work + new_latency_s for w in self.walls_s)
        mean_s = sum(walls) / len(walls)
        return Cost(walls_s=walls, share=min(1.0, busy_s / mean_s) if mean_s else 1.0)


def cost_of(walls_s: Sequence[float], share: float = 1.0) -> Cost:
    """The distribution of measured durations, thinned to quantiles with the same mean.

    >>> cost_of([3.0, 1.0, 2.0]).walls_s
    (1.0, 2.0, 3.0)
    """
    ordered, count = sorted(walls_s), len(walls_s)
    if count > MOST_VALUES:
        edges = [round(i * count / MOST_VALUES) for i in range(MOST_VALUES + 1)]
        parts = [ordered[a:b] for a, b in pairwise(edges)]
        ordered = [sum(part) / len(part) for part in parts]
    return Cost(walls_s=tuple(ordered), share=min(max(share, 0.0), 1.0))


class Basis(msgspec.Struct, frozen=True, kw_only=True):
    """The run that was measured.

    Attributes:
        run_id, policy: Which it was.
        num_steps, num_envs: T and B of a rollout.
        latency_s: Emulated latency of one vector step.
        batch_size: Samples of an `update` of one learner.
        rollout_fill: Env steps of a rollout over T x B: the others only reset an environment.
        is_on_device: Whether environments are tensors.
        is_profiled: Whether there is a profile.
        actors_per_host, cores, groups: Of it.
    """

    run_id: str
    policy: str
    num_steps: int
    num_envs: int
    latency_s: float
    batch_size: int
    rollout_fill: float
    is_on_device: bool
    is_profiled: bool
    actors_per_host: int
    cores: int
    groups: int


class Costs(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured; None where the run did not tell.

    Attributes:
        basis: The run.
        collect: Of a rollout by an actor that steps its own environments.
        env_step, act: Of one vector step of all environments of an actor.
        update: Of one batch.
        updates_per_batch: Optimiser steps in it, each with a sum over learners if they share one.
        publish_s: Of a learner for each process that it sends weights to, and once besides.
        store: Of a buffer for each rollout.
        draw: Of a replay buffer for each batch.
        merge: Of a reducer for each model.
        evaluate: Of one evaluation.
        report_s: Of the coordinator for each report.
    """

    basis: Basis
    collect: Cost | None
    env_step: Cost | None
    act: Cost | None
    update: Cost
    updates_per_batch: int
    publish_s: float
    store: Cost
    draw: Cost | None
    merge: Cost | None
    evaluate: Cost | None
    report_s: float
