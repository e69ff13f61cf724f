"""Figures of a study from its records alone: medians over seeds with intervals. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeGuard

import msgspec

from engine.trace.summary import Summary
from tianji_cli.bench.cells import SCHEMA_VERSION
from tianji_cli.bench.statistics import (
    Interval,
    bootstrap_median,
    common_horizon,
    mean_over_steps,
    median_difference,
    median_ratio,
)
from tianji_cli.bench.study.comparability import why_no_times
from tianji_cli.bench.study.records import (
    CellReturns,
    LearningCurve,
    StudyCell,
    StudyManifest,
    StudyRun,
)
from tianji_cli.bench.study.trials import SearchResult, search_of
from tianji_cli.bench.study.warnings import warnings_of

Quantity = Callable[[StudyRun], float | None]


class VariantResult(msgspec.Struct, frozen=True, kw_only=True):
    """One variant of a task. Medians are over seeds; a run that did not reach counts as longer."""

    variant: str
    num_runs: int
    """Finished runs, including failed ones."""
    num_reached: int
    num_censored: int
    num_failed: int
    num_pruned: int = 0
    consume_per_s: Interval | None = None
    """Env steps/s, steady window."""
    steps_to_threshold: Interval | None = None
    """Env steps collected; null if half of the runs or more did not reach."""
    time_to_threshold_s: Interval | None = None
    lag_mean: float | None = None
    """Median over seeds, in versions."""
    lag_max: int | None = None
    """Highest of all seeds, in versions."""
    dropped_share: float | None = None
    """Env steps dropped by env steps collected, over all seeds."""
    final_return: Interval | None = None
    """Mean return of the last episodes of each run."""
    mean_return: Interval | None = None
    """Area under the learning curve divided by its env steps, up to `horizon_env_steps`."""
    mean_return_over_time: Interval | None = None
    """Area under the learning curve divided by its time, up to `horizon_s`."""
    ratios: dict[str, Interval] = {}
    """By figure: this median by that of the baseline, over the seeds of both; only if all of them
    reached."""
    differences: dict[str, Interval] = {}
    """By figure: this median of returns minus that of the baseline, over the seeds of both."""


class TaskResult(msgspec.Struct, frozen=True, kw_only=True):
    """One task of a study."""

    task: str
    axis: str
    baseline: str | None
    algorithm: str
    env_id: str
    threshold: float | None
    variants: list[VariantResult]
    horizon_env_steps: int | None = None
    """Up to here all learning curves of the task go; null if a run has none."""
    horizon_s: float | None = None
    """The same in seconds of training."""
    times_not_compared: str | None = None
    """Why figures that depend on time are null; null if they are compared."""
    search: SearchResult | None = None
    """What the trials have found; null without a search."""


class StudyComparison(msgspec.Struct, frozen=True, kw_only=True):
    """`comparison.json`."""

    schema_version: int = SCHEMA_VERSION
    study_id: str
    tasks: list[TaskResult]
    warnings: list[str]


def throughput_of(run: StudyRun) -> float | None:
    return run.summary.consume_per_s if run.summary else None


def steps_of(run: StudyRun) -> float | None:
    """Env steps to the threshold; infinite if it was not reached."""
    return _or_longer(run, run.summary.steps_to_threshold if run.summary else None)


def time_of(run: StudyRun) -> float | None:
    """Seconds to the threshold; infinite if it was not reached."""
    return _or_longer(run, run.summary.time_to_threshold_s if run.summary else None)


def _or_longer(run: StudyRun, value: float | None) -> float | None:
    return {"reached": value, "censored": math.inf}.get(run.outcome)


def final_return_of(run: StudyRun) -> float | None:
    return run.summary.return_mean if run.summary else None


def mean_return_of(run: StudyRun, horizon: int) -> float | None:
    """The curve's mean over env steps, from its first point to the horizon (trapezoids)."""
    return mean_over_steps(run.curve.env_steps, run.curve.return_mean, horizon)


def mean_return_over_time_of(run: StudyRun, horizon_s: float) -> float | None:
    """The same over seconds of training."""
    return mean_over_steps(run.curve.t_s, run.curve.return_mean, horizon_s)


def returns_of(curve: LearningCurve, summary: Summary | None) -> CellReturns:
    """What one run has learnt, over all of its curve."""
    steps, t_s, means = curve.env_steps, curve.t_s, curve.return_mean
    return CellReturns(
        final=summary.return_mean if summary else None,
        over_env_steps=mean_over_steps(steps, means, steps[-1]) if steps else None,
        over_time=mean_over_steps(t_s, means, t_s[-1]) if t_s else None,
    )


def horizon_of(runs: Sequence[StudyRun]) -> int | None:
    """The env steps that the learning curves of all runs cover; None without any."""
    return common_horizon([run.curve.env_steps for run in runs])


def horizon_s_of(runs: Sequence[StudyRun]) -> float | None:
    """The seconds of training that they cover; None without any."""
    return common_horizon([run.curve.t_s for run in runs])


RATIOS: Mapping[str, Quantity] = {
    "consume_per_s": throughput_of,
    "steps_to_threshold": steps_of,
    "time_to_threshold_s": time_of,
}
OF_TIME = ("consume_per_s", "time_to_threshold_s", "mean_return_over_time")
"""Figures that say nothing if runs had different cores, or fewer of them."""


def is_judged(run: StudyRun) -> bool:
    """Whether a run counts in medians: it was neither ended early, nor has it failed."""
    return run.outcome not in ("failed", "pruned")


def compare_study(manifest: StudyManifest, runs: Mapping[StudyCell, StudyRun]) -> StudyComparison:
    """Computes all figures of a study.

    Args:
        manifest: What was to be done.
        runs: Records of the runs finished so far.
    """
    return StudyComparison(
        study_id=manifest.bench_id,
        tasks=[_task(manifest, name, runs) for name in manifest.suite.tasks],
        warnings=warnings_of(manifest, runs),
    )


def runs_of(runs: Mapping[StudyCell, StudyRun], task: str, variant: str) -> list[StudyRun]:
    """Finished runs of one variant by seed."""
    own = [run for cell, run in runs.items() if (cell.task, cell.variant) == (task, variant)]
    return sorted(own, key=lambda run: run.cell.seed)


def _task(manifest: StudyManifest, name: str, runs: Mapping[StudyCell, StudyRun]) -> TaskResult:
    task = manifest.suite.tasks[name]
    by_variant = {
        variant: runs_of(runs, name, variant) for variant in manifest.suite.variants_of(name)
    }
    base = by_variant.get(task.baseline or "", [])
    own = [run for of_variant in by_variant.values() for run in of_variant]
    known = [run.summary for run in own if run.summary]
    reason = why_no_times(own)
    quantities = _quantities([run for run in own if is_judged(run)], has_times=reason is None)
    return TaskResult(
        task=name,
        axis=task.axis,
        baseline=task.baseline,
        algorithm=known[0].algorithm if known else "",
        env_id=known[0].env_id if known else "",
        threshold=known[0].threshold if known else None,
        variants=[
            _variant(variant, found, base if variant != task.baseline else [], quantities)
            for variant, found in by_variant.items()
        ],
        horizon_env_steps=quantities.horizon_env_steps,
        horizon_s=quantities.horizon_s,
        times_not_compared=reason,
        search=search_of(manifest, name, runs),
    )


@dataclass(frozen=True)
class _Quantities:
    """What is compared between the runs of a task, by the name of the figure.

    Attributes:
        horizon_env_steps, horizon_s: Up to which learning curves count.
        ratios: Those that are divided by the baseline's.
        returns: Those from which the baseline's are subtracted: returns can have any sign.
    """

    horizon_env_steps: int | None
    horizon_s: float | None
    ratios: Mapping[str, Quantity]
    returns: Mapping[str, Quantity]

    @property
    def all(self) -> Mapping[str, Quantity]:
        return {**self.ratios, **self.returns}


def _quantities(judged: Sequence[StudyRun], *, has_times: bool) -> _Quantities:
    horizon, horizon_s = horizon_of(judged), horizon_s_of(judged) if has_times else None
    returns: dict[str, Quantity] = {"final_return": final_return_of}
    if horizon is not None:
        returns["mean_return"] = lambda run: mean_return_of(run, horizon)
    if horizon_s is not None:
        returns["mean_return_over_time"] = lambda run: mean_return_over_time_of(run, horizon_s)
    ratios = {name: of for name, of in RATIOS.items() if has_times or name not in OF_TIME}
    return _Quantities(horizon, horizon_s, ratios, returns)


def _variant(
    variant: str, runs: Sequence[StudyRun], base: Sequence[StudyRun], quantities: _Quantities
) -> VariantResult:
    fine = [run for run in runs if is_judged(run)]
    lags = [run.summary.lag for run in fine if run.summary]
    collected = sum(run.summary.env_steps_collected for run in fine if run.summary)
    dropped = sum(run.summary.env_steps_dropped for run in fine if run.summary)
    lag_mean = bootstrap_median(lag.mean for lag in lags)
    return VariantResult(
        variant=variant,
        num_runs=len(runs),
        num_reached=sum(run.outcome == "reached" for run in runs),
        num_censored=sum(run.outcome == "censored" for run in runs),
        num_failed=sum(run.outcome == "failed" for run in runs),
        num_pruned=sum(run.outcome == "pruned" for run in runs),
        lag_mean=lag_mean.estimate if lag_mean else None,
        lag_max=max((lag.max for lag in lags if lag.max is not None), default=None),
        dropped_share=dropped / collected if collected else None,
        ratios=_against(fine, base, quantities.ratios, median_ratio, is_known=_is_positive),
        differences=_against(fine, base, quantities.returns, median_difference),
        **{name: bootstrap_median(map(of, fine)) for name, of in quantities.all.items()},
    )


def _is_positive(value: float | None) -> TypeGuard[float]:
    return bool(value) and _is_finite(value)


def _is_finite(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)


def _against(
    runs: Sequence[StudyRun],
    base: Sequence[StudyRun],
    quantities: Mapping[str, Quantity],
    compare: Callable[[Sequence[float], Sequence[float]], Interval],
    *,
    is_known: Callable[[float | None], TypeGuard[float]] = _is_finite,
) -> dict[str, Interval]:
    """Over the seeds of both; a quantity missing from one of their runs is not compared."""
    found = {}
    for name, quantity in quantities.items():
        ours = {run.cell.seed: quantity(run) for run in runs}
        theirs = {run.cell.seed: quantity(run) for run in base}
        pairs = [(ours[seed], theirs[seed]) for seed in ours if seed in theirs]
        known = [(a, b) for a, b in pairs if is_known(a) and is_known(b)]
        if known and len(known) == len(pairs):
            found[name] = compare([a for a, _ in known], [b for _, b in known])
    return found
