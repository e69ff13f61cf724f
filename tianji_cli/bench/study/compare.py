"""Figures of a study from its records alone: medians over seeds with intervals. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import msgspec

from engine.wording import is_or_are, plural
from tianji_cli.bench.cells import SCHEMA_VERSION
from tianji_cli.bench.machine import MAX_BUSY_CORES
from tianji_cli.bench.statistics import (
    FEW_BLOCKS,
    Interval,
    bootstrap_median,
    common_horizon,
    mean_over_steps,
    median_ratio,
)
from tianji_cli.bench.study.records import StudyCell, StudyManifest, StudyRun

Quantity = Callable[[StudyRun], float | None]


class VariantResult(msgspec.Struct, frozen=True, kw_only=True):
    """One variant of a task. Medians are over seeds; a run that did not reach counts as longer."""

    variant: str
    num_runs: int
    """Finished runs, including failed ones."""
    num_reached: int
    num_censored: int
    num_failed: int
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
    ratios: dict[str, Interval] = {}
    """By figure: this median by that of the baseline, over the seeds of both; only if all of them
    reached."""


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


def horizon_of(runs: Sequence[StudyRun]) -> int | None:
    """The env steps that the learning curves of all runs cover; None without any."""
    return common_horizon([run.curve.env_steps for run in runs])


QUANTITIES: Mapping[str, Quantity] = {
    "consume_per_s": throughput_of,
    "steps_to_threshold": steps_of,
    "time_to_threshold_s": time_of,
}


def compare_study(manifest: StudyManifest, runs: Mapping[StudyCell, StudyRun]) -> StudyComparison:
    """Computes all figures of a study.

    Args:
        manifest: What was to be done.
        runs: Records of the runs finished so far.
    """
    return StudyComparison(
        study_id=manifest.bench_id,
        tasks=[_task(manifest, name, runs) for name in manifest.suite.tasks],
        warnings=_warnings(manifest, runs),
    )


def runs_of(runs: Mapping[StudyCell, StudyRun], task: str, variant: str) -> list[StudyRun]:
    """Finished runs of one variant by seed."""
    own = [run for cell, run in runs.items() if (cell.task, cell.variant) == (task, variant)]
    return sorted(own, key=lambda run: run.cell.seed)


def _task(manifest: StudyManifest, name: str, runs: Mapping[StudyCell, StudyRun]) -> TaskResult:
    task = manifest.suite.tasks[name]
    by_variant = {variant: runs_of(runs, name, variant) for variant in task.variants}
    base = by_variant.get(task.baseline or "", [])
    known = [run.summary for own in by_variant.values() for run in own if run.summary]
    horizon = horizon_of(
        [run for own in by_variant.values() for run in own if run.outcome != "failed"]
    )
    return TaskResult(
        task=name,
        axis=task.axis,
        baseline=task.baseline,
        algorithm=known[0].algorithm if known else "",
        env_id=known[0].env_id if known else "",
        threshold=known[0].threshold if known else None,
        variants=[
            _variant(variant, own, base if variant != task.baseline else [], horizon)
            for variant, own in by_variant.items()
        ],
        horizon_env_steps=horizon,
    )


def _variant(
    variant: str, runs: Sequence[StudyRun], base: Sequence[StudyRun], horizon: int | None
) -> VariantResult:
    fine = [run for run in runs if run.outcome != "failed"]
    lags = [run.summary.lag for run in fine if run.summary]
    collected = sum(run.summary.env_steps_collected for run in fine if run.summary)
    dropped = sum(run.summary.env_steps_dropped for run in fine if run.summary)
    lag_mean = bootstrap_median(lag.mean for lag in lags)
    return VariantResult(
        variant=variant,
        num_runs=len(runs),
        num_reached=sum(run.outcome == "reached" for run in runs),
        num_censored=sum(run.outcome == "censored" for run in runs),
        num_failed=len(runs) - len(fine),
        consume_per_s=_median(fine, throughput_of),
        steps_to_threshold=_median(fine, steps_of),
        time_to_threshold_s=_median(fine, time_of),
        lag_mean=lag_mean.estimate if lag_mean else None,
        lag_max=max((lag.max for lag in lags if lag.max is not None), default=None),
        dropped_share=dropped / collected if collected else None,
        final_return=_median(fine, final_return_of),
        mean_return=None
        if horizon is None
        else _median(fine, lambda run: mean_return_of(run, horizon)),
        ratios=_ratios(fine, base),
    )


def _median(runs: Sequence[StudyRun], quantity: Quantity) -> Interval | None:
    return bootstrap_median(map(quantity, runs))


def _ratios(runs: Sequence[StudyRun], base: Sequence[StudyRun]) -> dict[str, Interval]:
    """Over the seeds of both; a quantity missing from one of their runs has no ratio."""
    ratios = {}
    for name, quantity in QUANTITIES.items():
        ours = {run.cell.seed: quantity(run) for run in runs}
        theirs = {run.cell.seed: quantity(run) for run in base}
        pairs = [(ours[seed], theirs[seed]) for seed in ours if seed in theirs]
        known = [(a, b) for a, b in pairs if a and b and math.isfinite(a) and math.isfinite(b)]
        if known and len(known) == len(pairs):
            ratios[name] = median_ratio([a for a, _ in known], [b for _, b in known])
    return ratios


def _warnings(manifest: StudyManifest, runs: Mapping[StudyCell, StudyRun]) -> list[str]:
    """What a reader must know before trusting the figures."""
    found = []
    if missing := len(manifest.cells) - len(runs):
        runs_in_all = plural(len(manifest.cells), "run")
        found.append(f"{missing} of {runs_in_all} {is_or_are(missing)} still to be made.")
    few = min(manifest.suite.seeds_of(task) for task in manifest.suite.tasks)
    if few < FEW_BLOCKS:
        found.append(f"Fewer than {FEW_BLOCKS} seeds: intervals are narrower than they should be.")
    found += [
        f"{run.cell.name} failed: {run.detail.partition(chr(10))[0]}"
        for run in runs.values()
        if run.outcome == "failed"
    ]
    found += [
        f"{run.cell.name}: {plural(run.disagreements, 'figure')} disagreed with its traces."
        for run in runs.values()
        if run.disagreements
    ]
    busy = [run for run in runs.values() if run.load and run.load.busy_cores > MAX_BUSY_CORES]
    if busy:
        most = max(run.load.busy_cores for run in busy if run.load)
        found.append(
            f"The machine was busy before {len(busy)} of {plural(len(runs), 'run')} (up to"
            f" {most:.1f} of {plural(manifest.machine.num_cores, 'core')}): times and throughput"
            " are not to be quoted."
        )
    if manifest.git.dirty:
        found.append("The code had uncommitted changes.")
    return found
