"""Compares the results of all cells: which system was faster, by how much (pure functions)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import msgspec

from engine.wording import plural
from tianji_cli.bench.cells import SCHEMA_VERSION
from tianji_cli.bench.comparison.curves import TaskCurves
from tianji_cli.bench.comparison.measure import Figures
from tianji_cli.bench.comparison.results import BenchManifest, Cell, CellResult
from tianji_cli.bench.machine import MAX_BUSY_CORES
from tianji_cli.bench.statistics import (
    FEW_BLOCKS,
    Interval,
    SurvivalStep,
    bootstrap_iqm,
    bootstrap_median,
    coefficient_of_variation,
    common_horizon,
    kaplan_meier,
    mean_over_steps,
    median,
    paired_difference,
    paired_ratio,
    restricted_mean,
    restricted_ratio,
    survival_median,
    wilson,
)
from tianji_cli.bench.tasks.suite import Task

US = "tianji"
OBSERVED = ("reached", "censored")
MAX_SPREAD = 0.15

Answer = Literal["faster", "slower", "no difference shown", "too few blocks", "not computable"]
ReturnAnswer = Literal["better", "worse", "no difference shown", "too few blocks"]


class Ratio(msgspec.Struct, frozen=True, kw_only=True):
    """TianJi against one baseline, paired by block; above 1 TianJi is faster."""

    value: Interval | None
    answer: Answer
    num_blocks: int
    method: str
    reason: str = ""


class ReturnDifference(msgspec.Struct, frozen=True, kw_only=True):
    """TianJi's return less that of one baseline, at equal env steps, paired by block."""

    value: Interval
    answer: ReturnAnswer
    num_blocks: int


class SystemSummary(msgspec.Struct, frozen=True, kw_only=True, rename={"system": "peer"}):
    """One system on one task. Times are in seconds from the first sample unless named otherwise."""

    system: str
    num_cells: int
    outcomes: dict[str, int]
    throughput: Interval | None
    """IQM of env steps/s in the steady window."""
    throughput_median: float | None
    throughput_values: list[float]
    success: Interval | None
    """Share of observed cells that reached the threshold, with Wilson's interval."""
    survival: list[SurvivalStep]
    median_s: float | None
    """Of all observed runs, as the next medians; null if half of them missed the threshold."""
    restricted_mean_s: float | None
    median_from_launch_s: float | None
    median_steps: float | None
    launch_s: float | None
    """Median time from launch to the first sample."""
    peak_rss_bytes: int | None
    num_leftovers: int
    num_open_ports: int
    throughput_ratio: Ratio | None = None
    """TianJi's throughput over this system's; null for TianJi itself."""
    time_ratio: Ratio | None = None
    """This system's time to the threshold over TianJi's, likewise."""
    final_return: Interval | None = None
    """Median over observed cells of the mean return of the last training episodes; of those within
    the task's `env_steps`, if it has them."""
    mean_return: Interval | None = None
    """Likewise of the area under the learning curve divided by its env steps, up to
    `horizon_env_steps`; null if a cell of the task has no curve."""
    agent_steps: Interval | None = None
    """IQM of agent steps/s in the steady window, of a task with several agents."""
    trained: Interval | None = None
    """IQM of env steps trained per second, of a task with `env_steps`; the next two likewise."""
    trained_ratio: Ratio | None = None
    """TianJi's over this system's; null for TianJi itself, as the next."""
    return_difference: ReturnDifference | None = None


class TaskComparison(msgspec.Struct, frozen=True, kw_only=True, rename={"systems": "peers"}):
    """All systems on one task."""

    task: str
    horizon_s: float
    """All runs were observed at least this long, unless they reached the threshold."""
    systems: list[SystemSummary]
    horizon_env_steps: int | None = None
    """Up to here all learning curves of the task go; null if an observed cell has none."""


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """`comparison.json`: all figures of the report."""

    schema_version: int = SCHEMA_VERSION
    bench_ids: list[str]
    suite: str
    machine_id: str
    num_blocks: int
    tasks: list[TaskComparison]
    warnings: list[str]


def compare(
    manifest: BenchManifest,
    results: Mapping[Cell, CellResult],
    bench_ids: Sequence[str],
    curves: Mapping[str, TaskCurves] | None = None,
) -> Comparison:
    """Computes all figures of the report.

    Args:
        manifest: Of the benchmark.
        results: Its finished cells.
        bench_ids: The benchmarks they come from.
        curves: Learning curves by task, for the returns over env steps.
    """
    tasks = [
        _with_areas(
            _compare_task(name, task, [r for c, r in results.items() if c.task == name], manifest),
            (curves or {}).get(name),
        )
        for name, task in manifest.suite.tasks.items()
    ]
    return Comparison(
        bench_ids=list(bench_ids),
        suite=manifest.suite.name,
        machine_id=manifest.machine.id,
        num_blocks=len(manifest.seeds),
        tasks=tasks,
        warnings=_warnings(manifest, results, tasks),
    )


def _compare_task(
    name: str, task: Task, results: Sequence[CellResult], manifest: BenchManifest
) -> TaskComparison:
    by_system = {
        system: sorted((r for r in results if r.cell.system == system), key=lambda r: r.cell.seed)
        for system in manifest.systems
        if system in task.systems
    }
    horizon_s = _horizon_s(task, results)
    summaries = [_summarise(system, cells, horizon_s) for system, cells in by_system.items()]
    ours = by_system.get(US, [])
    summaries = [
        summary
        if summary.system == US or not ours
        else msgspec.structs.replace(
            summary,
            throughput_ratio=_throughput_ratio(ours, by_system[summary.system]),
            time_ratio=_time_ratio(ours, by_system[summary.system], horizon_s),
            **({} if task.env_steps is None else _at_equal_steps(ours, by_system[summary.system])),
        )
        for summary in summaries
    ]
    return TaskComparison(task=name, horizon_s=horizon_s, systems=summaries)


def _with_areas(task: TaskComparison, curves: TaskCurves | None) -> TaskComparison:
    """The same with the figures of its learning curves."""
    all_curves = [] if curves is None else [c for own in curves.curves.values() for c in own]
    horizon = common_horizon([curve.env_steps.tolist() for curve in all_curves])
    if curves is None or horizon is None:
        return task
    summaries = []
    for summary in task.systems:
        areas = [
            mean_over_steps(curve.env_steps.tolist(), curve.return_mean.tolist(), horizon)
            for curve in curves.curves.get(summary.system, [])
        ]
        mean_return = bootstrap_median(areas)
        summaries.append(msgspec.structs.replace(summary, mean_return=mean_return))
    return msgspec.structs.replace(task, systems=summaries, horizon_env_steps=horizon)


def _horizon_s(task: Task, results: Sequence[CellResult]) -> float:
    """The budget, or the shortest observation of a censored run if that is shorter."""
    observed = [_time(r) for r in results if r.outcome == "censored"]
    return min([task.budget_s, *observed])


def _time(result: CellResult) -> float:
    """Time to the threshold, or of censoring, in seconds from the first sample."""
    figures = result.figures
    if result.outcome == "reached" and figures.time_to_threshold_s is not None:
        return figures.time_to_threshold_s
    return figures.trained_s or 0.0


def _summarise(system: str, cells: Sequence[CellResult], horizon_s: float) -> SystemSummary:
    observed = [r for r in cells if r.outcome in OBSERVED]
    reached = [r for r in observed if r.outcome == "reached"]
    rates = [r.figures.collect_per_s for r in observed if r.figures.collect_per_s is not None]
    agent_rates = [v for r in observed if (v := r.figures.agent_steps_per_s) is not None]
    trained = [r.figures.trained_per_s for r in observed if r.figures.trained_per_s is not None]
    curve = (
        kaplan_meier([_time(r) for r in observed], [r.outcome == "reached" for r in observed])
        if observed
        else []
    )
    launches = [r.figures.first_sample_s for r in observed if r.figures.first_sample_s is not None]
    return SystemSummary(
        system=system,
        num_cells=len(cells),
        outcomes=dict(Counter(r.outcome for r in cells)),
        throughput=bootstrap_iqm(rates) if rates else None,
        throughput_median=median(rates),
        throughput_values=rates,
        agent_steps=bootstrap_iqm(agent_rates) if agent_rates else None,
        trained=bootstrap_iqm(trained) if trained else None,
        success=wilson(len(reached), len(observed)) if observed else None,
        survival=curve,
        median_s=survival_median(curve) if curve else None,
        restricted_mean_s=restricted_mean(curve, horizon_s) if curve else None,
        median_from_launch_s=_median_until_reached(observed, lambda f: f.reached_s),
        median_steps=_median_until_reached(observed, lambda f: f.steps_to_threshold or None),
        launch_s=median(launches),
        peak_rss_bytes=max((r.peak_rss_bytes for r in cells), default=0) or None,
        final_return=bootstrap_median(r.figures.return_mean for r in observed),
        num_leftovers=sum(len(r.leftovers) for r in cells),
        num_open_ports=sum(len(item.listening) for r in cells for item in r.leftovers),
    )


def _median_until_reached(
    observed: Sequence[CellResult], figure: Callable[[Figures], float | None]
) -> float | None:
    """Over all observed runs; a censored one took longer than any, so there may be no number."""
    values = [math.inf if r.outcome == "censored" else figure(r.figures) for r in observed]
    return median(value for value in values if value is not None)


def _blocks(
    ours: Sequence[CellResult], theirs: Sequence[CellResult]
) -> list[tuple[CellResult, CellResult]]:
    """The blocks in which both were observed, in order."""
    others = {r.cell.seed: r for r in theirs if r.outcome in OBSERVED}
    return [
        (r, others[r.cell.seed]) for r in ours if r.outcome in OBSERVED and r.cell.seed in others
    ]


def _at_equal_steps(
    ours: Sequence[CellResult], theirs: Sequence[CellResult]
) -> dict[str, Ratio | ReturnDifference | None]:
    """The fields of a summary that only a task with `env_steps` has."""
    pairs = [
        (a.figures.return_mean, b.figures.return_mean)
        for a, b in _blocks(ours, theirs)
        if a.figures.return_mean is not None and b.figures.return_mean is not None
    ]
    difference = None
    if pairs:
        value = paired_difference([a for a, _ in pairs], [b for _, b in pairs])
        answer = _return_answer(value)
        difference = ReturnDifference(value=value, answer=answer, num_blocks=len(pairs))
    return {
        "trained_ratio": _rate_ratio(ours, theirs, lambda figures: figures.trained_per_s),
        "return_difference": difference,
    }


def _return_answer(value: Interval) -> ReturnAnswer:
    if value.low is None:
        return "too few blocks"
    if value.contains(0.0):
        return "no difference shown"
    return "better" if value.estimate > 0 else "worse"


def _throughput_ratio(ours: Sequence[CellResult], theirs: Sequence[CellResult]) -> Ratio:
    return _rate_ratio(ours, theirs, lambda figures: figures.collect_per_s)


def _rate_ratio(
    ours: Sequence[CellResult],
    theirs: Sequence[CellResult],
    rate: Callable[[Figures], float | None],
) -> Ratio:
    pairs = [
        (one, other)
        for a, b in _blocks(ours, theirs)
        if (one := rate(a.figures)) and (other := rate(b.figures))
    ]
    method = "geometric mean of the ratios within blocks"
    if not pairs:
        return _no_ratio(method, "there is no block in which both ran")
    value = paired_ratio([a for a, _ in pairs], [b for _, b in pairs])
    return Ratio(value=value, answer=_answer(value), num_blocks=len(pairs), method=method)


def _time_ratio(
    ours: Sequence[CellResult], theirs: Sequence[CellResult], horizon_s: float
) -> Ratio:
    blocks = _blocks(ours, theirs)
    method = "geometric mean of the ratios within blocks"
    if not blocks:
        return _no_ratio(method, "there is no block in which both ran")
    for side, who in ((0, "TianJi's"), (1, "the baseline's")):
        num_censored = sum(block[side].outcome == "censored" for block in blocks)
        if num_censored * 2 > len(blocks):
            return _no_ratio(method, f"more than half of {who} runs did not reach the threshold")
    a, b = [_time(block[0]) for block in blocks], [_time(block[1]) for block in blocks]
    if all(r.outcome == "reached" for block in blocks for r in block):
        value = paired_ratio(b, a)
    else:
        method = f"ratio of restricted means, up to {horizon_s:.1f} s"
        value = restricted_ratio(b, a, horizon_s)
    return Ratio(value=value, answer=_answer(value), num_blocks=len(blocks), method=method)


def _answer(value: Interval) -> Answer:
    if value.low is None:
        return "too few blocks"
    if value.contains(1.0):
        return "no difference shown"
    return "faster" if value.estimate > 1 else "slower"


def _no_ratio(method: str, reason: str) -> Ratio:
    return Ratio(value=None, answer="not computable", num_blocks=0, method=method, reason=reason)


def _warnings(
    manifest: BenchManifest,
    results: Mapping[Cell, CellResult],
    tasks: Sequence[TaskComparison],
) -> list[str]:
    """What a reader must know before trusting the figures."""
    found = []
    num_open = len(manifest.cells) - len(results)
    if num_open:
        found.append(
            f"Unfinished: {num_open} of {plural(len(manifest.cells), 'cell')} have no result yet."
        )
    if len(manifest.seeds) < FEW_BLOCKS:
        found.append(
            f"Number of blocks: {len(manifest.seeds)}. Bootstrap intervals of fewer than"
            f" {FEW_BLOCKS} are too narrow."
        )
    busy = [r for r in results.values() if r.load and r.load.busy_cores > MAX_BUSY_CORES]
    if busy:
        highest = max(r.load.busy_cores for r in busy if r.load)
        found.append(
            f"The machine was not idle before {len(busy)} of {plural(len(results), 'cell')}: up to"
            f" {highest:.1f} cores were busy with something else."
        )
    for task in tasks:
        for summary in task.systems:
            spread = coefficient_of_variation(summary.throughput_values)
            if spread is not None and spread > MAX_SPREAD:
                found.append(
                    f"{task.task}: the throughput of {summary.system} varies by {spread:.0%}"
                    " between blocks (standard deviation over mean), so small differences mean"
                    " nothing."
                )
    failed = Counter(r.outcome for r in results.values() if r.outcome not in OBSERVED)
    found += [
        f"{count} of {plural(len(results), 'cell')}: {outcome}; the table of cells says why."
        for outcome, count in sorted(failed.items())
    ]
    if manifest.git.dirty:
        found.append("TianJi's working tree had uncommitted changes.")
    return found
