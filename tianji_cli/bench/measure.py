"""The figures of one cell, from its trace tables alone. The harness and the report both use it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from engine.trace.records import Consumption, Episode, Event, Production, Record
from engine.trace.summary import steady_rate_per_s
from tianji_cli.bench.crossing import Crossing
from tianji_cli.bench.suite import Task

MAX_MISCOUNT = 0.01
CLAIM_LAG_S = 5.0


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What one system did in one cell. Times are seconds since launch unless named otherwise."""

    first_sample_s: float | None = None
    first_update_s: float | None = None
    reached_s: float | None = None
    """The mean return had held the threshold for as long as the task's `judge` wants."""
    last_sample_s: float | None = None
    time_to_threshold_s: float | None = None
    """From the first sample."""
    steps_to_threshold: int | None = None
    trained_s: float | None = None
    """From the first sample to the last: how long it was observed."""
    env_steps: int = 0
    episodes: int = 0
    return_mean: float | None = None
    """Of the last window of training episodes."""
    collect_per_s: float | None = None
    consume_per_s: float | None = None
    claimed_env_steps: int | None = None
    """The system's own last count."""
    miscount: float | None = None
    """Share by which the counted env steps differ from the system's own count at that moment."""


def measure(rows: Sequence[Record], task: Task) -> Figures:
    """Computes the figures of one cell.

    Env steps are counted by the environments themselves (TianJi: by its actors). Rates are taken
    over the last 80 % of the time between the first and the last sample, so that start-up,
    compilation and warm-up are left out for everybody by the same rule.

    Args:
        rows: Trace rows with `t_s` since launch.
        task: Threshold and judge.
    """
    production = sorted((r for r in rows if isinstance(r, Production)), key=lambda r: r.t_s)
    consumption = sorted((r for r in rows if isinstance(r, Consumption)), key=lambda r: r.t_s)
    episodes = sorted((r for r in rows if isinstance(r, Episode)), key=lambda r: r.t_s)
    if not production:
        return Figures(episodes=len(episodes))
    first_s = min(row.t_s - row.collect_s for row in production)
    last_s = production[-1].t_s
    curve = _running([(row.t_s, row.env_steps) for row in production])
    crossing = Crossing(task.judge, task.threshold)
    for row in episodes:
        crossing.hear(row.episode_return, row.t_s)
    reached_s = crossing.reached_s
    claimed, miscount = _reconcile(rows, curve, task)
    return Figures(
        first_sample_s=first_s,
        first_update_s=consumption[0].t_s if consumption else None,
        reached_s=reached_s,
        last_sample_s=last_s,
        time_to_threshold_s=None if reached_s is None else reached_s - first_s,
        steps_to_threshold=None if reached_s is None else _at(curve, reached_s),
        trained_s=last_s - first_s,
        env_steps=curve[-1][1],
        episodes=len(episodes),
        return_mean=crossing.mean,
        collect_per_s=steady_rate_per_s(curve),
        consume_per_s=_rate(consumption),
        claimed_env_steps=claimed,
        miscount=miscount,
    )


def _rate(rows: Sequence[Consumption]) -> float | None:
    """Env steps/s that the learner took; None for one that learns from replay and counts none."""
    if not any(row.env_steps for row in rows):
        return None
    return steady_rate_per_s(_running([(row.t_s, row.env_steps) for row in rows]))


def _running(points: Sequence[tuple[float, int]]) -> list[tuple[float, int]]:
    total = 0
    curve = []
    for t_s, count in points:
        total += count
        curve.append((t_s, total))
    return curve


def _at(curve: Sequence[tuple[float, int]], t_s: float) -> int:
    """The running total at a time."""
    total = 0
    for when_s, count in curve:
        if when_s > t_s:
            break
        total = count
    return total


def _reconcile(
    rows: Sequence[Record], curve: Sequence[tuple[float, int]], task: Task
) -> tuple[int | None, float | None]:
    """Compares the system's own last count with ours.

    A system may learn of its env steps late: by `CLAIM_LAG_S`, and by what is still on its
    way. Only what lies outside of that is a difference.
    """
    claims = [r for r in rows if isinstance(r, Event) and r.kind == "claimed"]
    if not claims:
        return None, None
    claimed, t_s = int(claims[-1].detail), claims[-1].t_s
    in_flight = task.algorithm.in_flight_steps
    lowest, highest = _at(curve, t_s - CLAIM_LAG_S) - in_flight, _at(curve, t_s) + in_flight
    difference = max(0, lowest - claimed, claimed - highest)
    return claimed, difference / max(_at(curve, t_s), 1)
