"""The figures of one cell, from its trace tables alone. Used by the harness and the report."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np
from msgspec import UNSET

from engine.trace.records import Consumption, Episode, Event, Production, Record
from engine.trace.summary import STEADY_SHARE
from tianji_cli.bench.comparison.stop_rule import ThresholdDetector
from tianji_cli.bench.systems.raw import CLAIMED, RECEIVED
from tianji_cli.bench.tasks.suite import Task

MAX_MISCOUNT = 0.01
CLAIM_LAG_S = 5.0


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of one system in one cell. Times are seconds since launch unless named otherwise."""

    first_sample_s: float | None = None
    first_update_s: float | None = None
    reached_s: float | None = None
    """The mean return stayed at the threshold for as long as the task's `judge` requires."""
    last_sample_s: float | None = None
    time_to_threshold_s: float | None = None
    """From the first sample."""
    steps_to_threshold: int | None = None
    trained_s: float | None = None
    """From the first sample to the stop: how long it was observed."""
    env_steps: int = 0
    episodes: int = 0
    return_mean: float | None = None
    """Of the last window of training episodes; of those within the task's `env_steps`, if set."""
    collect_per_s: float | None = None
    agent_steps_per_s: float | None = None
    """Of a team: likewise, every agent's own steps."""
    consume_per_s: float | None = None
    trained_per_s: float | None = None
    """Samples trained per second over how often each env step is; with the task's `env_steps`."""
    claimed_env_steps: int | None = None
    """The system's own last count of env steps."""
    miscount: float | None = None
    """Share by which the counted env steps differ from the system's own count at that moment."""


def measure(rows: Sequence[Record], task: Task, stop_s: float | None = None) -> Figures:
    """Computes the figures of one cell.

    Env steps are counted by the environments themselves (TianJi: by its actors). Rates are taken
    over the last 80 % of the time between the first sample and the stop, so that start-up,
    compilation and warm-up are excluded for all systems by the same rule, and pauses of a system
    that alternates between collecting and learning count. Nothing after the stop counts.

    Args:
        rows: Trace rows with `t_s` since launch.
        task: Threshold and judge.
        stop_s: When the system was asked to stop; None: never, its last sample counts.
    """
    production = sorted((r for r in rows if isinstance(r, Production)), key=lambda r: r.t_s)
    consumption = sorted((r for r in rows if isinstance(r, Consumption)), key=lambda r: r.t_s)
    episodes = sorted((r for r in rows if isinstance(r, Episode)), key=lambda r: r.t_s)
    if not production:
        return Figures(episodes=len(episodes))
    first_s = min(row.t_s - row.collect_s for row in production)
    end_s = production[-1].t_s if stop_s is None else stop_s
    curve = _running([(row.t_s, row.env_steps) for row in production])
    collected = [(row.t_s - row.collect_s, row.t_s, row.env_steps) for row in production]
    of_agents = [
        (row.t_s - row.collect_s, row.t_s, row.agent_steps)
        for row in production
        if row.agent_steps is not UNSET
    ]
    consumed = [(row.t_s, row.t_s, row.env_steps) for row in consumption]
    crossing = ThresholdDetector(task.judge, task.threshold)
    for row in episodes:
        if row.t_s <= end_s and row.env_steps_collected <= (task.env_steps or math.inf):
            crossing.hear(row.episode_return, row.t_s)
    reached_s = crossing.reached_s
    claimed, miscount = _reconcile(rows, curve, task)
    return Figures(
        first_sample_s=first_s,
        first_update_s=consumption[0].t_s if consumption else None,
        reached_s=reached_s,
        last_sample_s=production[-1].t_s,
        time_to_threshold_s=None if reached_s is None else reached_s - first_s,
        steps_to_threshold=None if reached_s is None else _at(curve, reached_s),
        trained_s=max(0.0, end_s - first_s),
        env_steps=curve[-1][1],
        episodes=len(episodes),
        return_mean=crossing.mean,
        collect_per_s=_rate_per_s(collected, first_s, end_s),
        agent_steps_per_s=_rate_per_s(of_agents, first_s, end_s),
        consume_per_s=_rate_per_s(consumed, first_s, end_s),
        trained_per_s=_trained_per_s(consumption, task, first_s, end_s),
        claimed_env_steps=claimed,
        miscount=miscount,
    )


def _trained_per_s(
    consumption: Sequence[Consumption], task: Task, first_s: float, end_s: float
) -> float | None:
    """Env steps trained per second; None without samples, or if the task has no `env_steps`."""
    if task.env_steps is None:
        return None
    trained = [(row.t_s, row.t_s, row.samples_trained) for row in consumption]
    samples_per_s = _rate_per_s(trained, first_s, end_s)
    return samples_per_s and samples_per_s / task.algorithm.samples_per_env_step


def _rate_per_s(
    spans: Sequence[tuple[float, float, int]], first_s: float, end_s: float
) -> float | None:
    """Env steps per second over the last part of the time from `first_s` to `end_s`.

    Args:
        spans: Begin, end and env steps of each collection, taken as even in between.
        first_s: The first sample.
        end_s: The stop.
    """
    begin_s = first_s + (1 - STEADY_SHARE) * (end_s - first_s)
    if end_s <= begin_s or not sum(count for _, _, count in spans):
        return None
    starts, ends, counts = (np.asarray(column) for column in zip(*spans, strict=True))
    lengths = np.maximum(ends - starts, 1e-9)
    shares = np.clip((ends - begin_s) / lengths, 0, 1) - np.clip((ends - end_s) / lengths, 0, 1)
    return float(shares @ counts) / (end_s - begin_s)


def _running(points: Sequence[tuple[float, int]]) -> list[tuple[float, int]]:
    total = 0
    curve = []
    for t_s, count in points:
        total += count
        curve.append((t_s, total))
    return curve


def _at(curve: Sequence[tuple[float, int]], t_s: float) -> int:
    """The running total at a given time."""
    total = 0
    for when_s, count in curve:
        if when_s > t_s:
            break
        total = count
    return total


def _reconcile(
    rows: Sequence[Record], curve: Sequence[tuple[float, int]], task: Task
) -> tuple[int | None, float | None]:
    """Compares the system's own last count of env steps with ours.

    A system may learn of its env steps late: by `CLAIM_LAG_S`, and by what is still on its
    way, of which there may be any number if it counts what it has received (`RECEIVED`). Only
    values outside of it count as a difference.
    """
    claims = [r for r in rows if isinstance(r, Event) and r.kind in (CLAIMED, RECEIVED)]
    if not claims:
        return None, None
    claimed, t_s = int(claims[-1].detail), claims[-1].t_s
    in_flight = task.algorithm.in_flight_steps
    lowest, highest = _at(curve, t_s - CLAIM_LAG_S) - in_flight, _at(curve, t_s) + in_flight
    if claims[-1].kind == RECEIVED:
        lowest = 0
    difference = max(0, lowest - claimed, claimed - highest)
    return claimed, difference / max(_at(curve, t_s), 1)
