"""Progress of a run: for the user, for checkpoints, and for runs that resume one."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

Count = Annotated[int, Meta(ge=0, le=2**62)]
Judge: TypeAlias = Literal["training", "evaluation"]
"""Whose returns: of training episodes, exploration included, or of separate evaluations."""


class RoleState(msgspec.Struct, frozen=True):
    """One role: `starting`, `running`, `stopped` or `gone`; cores used lately, if known."""

    state: str
    cores: float | None = None


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot; rates are over the last few seconds, lag over the last batches.

    Attributes:
        phase: `starting`, `running` or `stopping`.
        env_steps_limit, seconds_limit, threshold: The stop rules; None if unset.
        return_of: The agent or policy of a team whose return `return_mean` is; None: the team's.
        agent_returns, policy_returns: Mean returns within a team, by name.
        roles: State of each role by address, and the share of a core that it uses.
    """

    phase: str
    t_s: float
    env_steps_collected: int = 0
    env_steps_consumed: int = 0
    env_steps_dropped: int = 0
    samples_trained: int = 0
    collect_per_s: float = 0.0
    consume_per_s: float = 0.0
    trained_per_s: float = 0.0
    balance: float | None = None
    lag_mean: float | None = None
    lag_max: int | None = None
    weights_version: int = 0
    episodes: int = 0
    return_mean: float | None = None
    return_of: str | None = None
    agent_returns: dict[str, float] = {}
    policy_returns: dict[str, float] = {}
    threshold: float | None = None
    env_steps_limit: int | None = None
    seconds_limit: float | None = None
    roles: dict[str, RoleState] = {}


class RunCounters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Counters of a run, including those of the runs that it resumed.

    Attributes:
        elapsed_s: On the run's timeline.
    """

    elapsed_s: Annotated[float, Meta(ge=0.0, le=1e9)] = 0.0
    env_steps_collected: Count = 0
    env_steps_consumed: Count = 0
    env_steps_dropped: Count = 0
    samples_trained: Count = 0
    episodes: Count = 0


class MeanReturn(msgspec.Struct, frozen=True, kw_only=True):
    """How good a policy is, as far as a run knows.

    Attributes:
        mean: Of the undiscounted returns of episodes; finite.
        judge: Whose episodes.
        version: Of the weights that were evaluated, or that acted in the newest episode.
    """

    mean: float
    judge: Judge
    version: Count


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """The run's progress, for a learner that writes a checkpoint.

    Attributes:
        counters: What the coordinator knows.
        known_return: How good this learner's policy is; None if no episode has told yet.
        consumed, trained: The part reported by this learner, and by those that make every update
            together with it, so that it can add the rest.
    """

    counters: RunCounters = RunCounters()
    known_return: MeanReturn | None = None
    consumed: int = 0
    trained: int = 0

    def brought_up(self, consumed: int, trained: int, now_s: float) -> RunCounters:
        """Counters with the current env steps consumed and samples trained of the same learners."""
        known = self.counters
        consumed = known.env_steps_consumed + consumed - self.consumed
        return msgspec.structs.replace(
            known,
            elapsed_s=now_s,
            env_steps_consumed=consumed,
            env_steps_collected=max(known.env_steps_collected, consumed + known.env_steps_dropped),
            samples_trained=known.samples_trained + trained - self.trained,
        )


class LimiterState(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Counts of a rate limiter (`engine.replay.limiter`), for a saved replay store.

    Attributes:
        inserted: Env steps.
        sampled: Samples, those of a batch under way included.
        rollouts_left: Of a round whose rollouts alternate with batches; None if they do not.
        lost_batches: Batches to draw again.
    """

    inserted: Count = 0
    sampled: Annotated[int, Meta(ge=-(2**62), le=2**62)] = 0
    rollouts_left: Count | None = None
    lost_batches: Count = 0


class Resumed(msgspec.Struct, frozen=True, kw_only=True):
    """The checkpoint that a run resumes.

    Attributes:
        run_id: The run that wrote the checkpoint.
        checkpoint: Name of its JSON file, of which this run's `checkpoints/` holds a copy.
        version: Of its weights.
        updates: Optimiser steps taken by then.
        counters: Of that run when the checkpoint was written, balanced: what had been collected
            and neither consumed nor dropped by then was lost with it, so it counts as dropped.
        resumes: How often this chain of runs was resumed, this time included.
        replays: Saved replay stores that it goes on with: version of each, by number of its buffer.
    """

    run_id: str
    checkpoint: str
    version: Count
    updates: Count
    counters: RunCounters
    resumes: Annotated[int, Meta(ge=1)]
    replays: dict[int, Count] = {}


def steps_left(limit: int | None, resumed: Resumed | None) -> int | None:
    """The env steps that a limit leaves to a run; None without a limit."""
    if limit is None or resumed is None:
        return limit
    return limit - resumed.counters.env_steps_consumed
