"""Data of the plots of a benchmark, from the trace tables of its cells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from engine.trace.reader import read_table
from engine.trace.records import Episode, Staleness
from tianji_cli.bench.comparison.results import BenchFiles, Cell, CellResult
from tianji_cli.bench.statistics import NUM_RESAMPLES
from tianji_cli.bench.tasks.suite import Task

NUM_POINTS = 240


@dataclass(frozen=True)
class Curve:
    """One run's moving mean return, downsampled for drawing.

    Attributes:
        t_s: Seconds from the first sample.
        env_steps: Collected up to then.
        return_mean: Of the last window of episodes; only where the window was full.
    """

    t_s: np.ndarray
    env_steps: np.ndarray
    return_mean: np.ndarray


@dataclass(frozen=True)
class Band:
    """Mean over the runs of one system, with its 95 % bootstrap interval, on a common grid."""

    x: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True)
class TaskCurves:
    """Data of all plots of one task.

    Attributes:
        task_name: Its name.
        task: Its settings.
        curves: By system, one for each observed cell.
        results: By system, by seed.
        lag_steps: Env steps by lag in versions, of all of TianJi's cells.
    """

    task_name: str
    task: Task
    curves: dict[str, list[Curve]] = field(default_factory=dict)
    results: dict[str, list[CellResult]] = field(default_factory=dict)
    lag_steps: dict[int, int] = field(default_factory=dict)


def load_curves(
    name: str, task: Task, places: Mapping[Cell, BenchFiles], results: Mapping[Cell, CellResult]
) -> TaskCurves:
    """Reads the tables of one task's cells.

    Raises:
        ConfigError: A table is damaged.
    """
    found = TaskCurves(name, task)
    lags: Counter[int] = Counter()
    for cell, result in sorted(results.items(), key=lambda item: item[0].seed):
        if cell.task != name:
            continue
        found.results.setdefault(cell.system, []).append(result)
        trace = places[cell].files(cell).trace
        if result.outcome in ("reached", "censored"):
            episodes = read_table(trace, Episode)
            found.curves.setdefault(cell.system, []).append(_curve(episodes, task, result))
        for row in read_table(trace, Staleness):
            lags.update(row.steps_by_lag)
    found.lag_steps.update(sorted(lags.items()))
    return found


def _curve(episodes: Sequence[Episode], task: Task, result: CellResult) -> Curve:
    ordered = sorted(episodes, key=lambda row: row.t_s)
    window = task.judge.window
    if len(ordered) < window:
        empty = np.zeros(0)
        return Curve(empty, empty, empty)
    sums = np.cumsum([0.0, *(row.episode_return for row in ordered)])
    means = (sums[window:] - sums[:-window]) / window
    first_s = result.figures.first_sample_s or 0.0
    times = np.array([row.t_s - first_s for row in ordered[window - 1 :]])
    steps = np.maximum.accumulate([row.env_steps_collected for row in ordered])[window - 1 :]
    keep = np.unique(np.linspace(0, len(means) - 1, NUM_POINTS).round().astype(int))
    return Curve(times[keep], steps[keep], means[keep])


def band(curves: Sequence[Curve], x: str) -> Band | None:
    """Mean and interval where all runs have a value; a run that ended keeps its last one.

    Args:
        curves: Of one system.
        x: `t_s` or `env_steps`.

    Returns:
        None below two runs.
    """
    usable = [curve for curve in curves if len(curve.return_mean)]
    if len(usable) < 2:
        return None
    start = max(float(getattr(curve, x)[0]) for curve in usable)
    stop = max(float(getattr(curve, x)[-1]) for curve in usable)
    grid = np.linspace(start, stop, NUM_POINTS)
    values = np.stack([np.interp(grid, getattr(c, x), c.return_mean) for c in usable])
    indices = np.random.default_rng(0).integers(
        0, len(usable), size=(NUM_RESAMPLES // 10, len(usable))
    )
    means = values[indices].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5], axis=0)
    return Band(grid, values.mean(axis=0), low, high)
