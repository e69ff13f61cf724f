"""`summary.json`: one run in one small document."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from engine.trace.records import SCHEMA_VERSION, Whole

STEADY_SHARE = 0.8

RunStatus = Literal["ok", "failed", "interrupted"]


class LagSummary(msgspec.Struct, frozen=True, kw_only=True):
    """Over all consumed env steps, in versions; null before anything was consumed."""

    min: Whole | None = None
    mean: float | None = None
    p95: float | None = None
    max: Whole | None = None


CONTROLLER_LOST = "controller-lost"
"""`stop_reason` if a host heard no more of the command, which had ended or was cut off."""
KILLED = "killed"
"""`stop_reason` of a summary that `up` rebuilt, because the coordinator died before it wrote
one."""
UNKNOWN = "unknown"
"""`stop_reason` if there is no summary here: the run continues, or its hosts have it."""


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """The summary of a run. Every figure can be rebuilt from the trace tables."""

    schema_version: int = SCHEMA_VERSION
    run_id: str
    status: RunStatus
    error: str | None = None
    stop_reason: str
    algorithm: str
    env_id: str
    policy: str
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
    num_hosts: Whole
    num_actors: Whole
    num_groups: Whole
    wall_s: float
    env_steps_collected: Whole
    env_steps_consumed: Whole
    env_steps_dropped: Whole
    env_steps_in_flight: Whole
    samples_trained: Whole
    collect_per_s: float | None
    consume_per_s: float | None
    trained_per_s: float | None
    updates: Whole
    weights_version: Whole
    lag: LagSummary
    balance: float | None
    return_mean: float | None
    episodes: Whole
    threshold: float | None
    reached: bool | None
    time_to_threshold_s: float | None
    steps_to_threshold: Whole | None
    restarts: Whole
    judge: Literal["training", "evaluation"] = "training"
    """Whose returns were compared with the threshold."""
    evaluation_return: float | None = None
    """Mean return of the last evaluation; null without one."""
    replay_ratio: float | None = None
    """Samples trained for each env step collected; null where samples come from a queue."""
    trace_error: str | None = None
    """Why trace tables end before the run did; null if they are whole."""
    resumed_from: str | None = None
    """The run whose checkpoint this one resumed; its counters are part of these."""
    return_of: str | None = None
    """The agent or policy of a team whose returns `return_mean`, `evaluation_return` and the
    threshold are about; null: those of the whole environment."""
    team_return: float | None = None
    """Mean return of a team over the last episodes; null if there is one agent."""
    agent_returns: dict[str, float] = {}
    """Mean return of each agent of a team over the last episodes, by name."""
    policy_returns: dict[str, float] = {}
    """Mean over the last episodes of the sum of returns of the agents that share a policy."""
    agent_steps_collected: Whole | None = None
    """Of a team, by this run alone: env steps times agents that were there; null otherwise."""


def steady_rate_per_s(points: Sequence[tuple[float, int]]) -> float | None:
    """Increase per second of a counter over its steady window: the last 80 % of its time.

    Args:
        points: (t_s, total) in order of time, first point included as the counter's start.

    Returns:
        None if the points span no time.
    """
    if len(points) < 2 or points[-1][0] <= points[0][0]:
        return None
    begin_s = points[0][0] + (1 - STEADY_SHARE) * (points[-1][0] - points[0][0])
    inside = [point for point in points if point[0] >= begin_s]
    if len(inside) < 2:
        inside = list(points[-2:])
    (t0, n0), (t1, n1) = inside[0], inside[-1]
    return (n1 - n0) / (t1 - t0) if t1 > t0 else None


def weighted_percentile(counts: dict[int, int], share: float) -> float:
    """The smallest value that at least `share` of the weight does not exceed.

    >>> weighted_percentile({0: 90, 1: 10}, 0.95)
    1.0
    """
    needed = share * sum(counts.values())
    total = 0
    for value in sorted(counts):
        total += counts[value]
        if total >= needed:
            return float(value)
    return math.nan


def summarise_lag(counts: dict[int, int]) -> LagSummary:
    """Lag statistics from env steps per lag."""
    num_steps = sum(counts.values())
    if not num_steps:
        return LagSummary()
    return LagSummary(
        min=min(counts),
        mean=sum(lag * steps for lag, steps in counts.items()) / num_steps,
        p95=weighted_percentile(counts, 0.95),
        max=max(counts),
    )
