"""The figures of a benchmark. A system has the same colour, dashes and marker in all of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tianji_cli import units
from tianji_cli.bench.comparison.compare import SystemSummary, TaskComparison
from tianji_cli.bench.comparison.curves import TaskCurves, band
from tianji_cli.bench.comparison.results import CellResult
from tianji_cli.bench.tasks.suite import SYSTEMS
from tianji_cli.plotting.figure_style import (
    DASHES,
    FAINT,
    HATCHES,
    INK,
    SIZE_INCHES,
    colour_of,
    in_style,
)
from tianji_cli.plotting.figures import Axes, Figure, FuncFormatter, MaxNLocator, PercentFormatter
from tianji_cli.render.bench.bench_text import TITLES, title_of_throughput, title_of_time

BOUND = (0, (6, 3))
NUM_BARS = 12
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
PHASES = (
    ("launch to first sample", "#d0d7de", ""),
    ("to the first update", "#E69F00", "..."),
    ("to the threshold", "#0072B2", ""),
    ("on to the end", "#b3d4ea", "///"),
    ("stopping", "#6b6b6b", "xxx"),
)


@dataclass(frozen=True)
class BenchFigure:
    """A figure of one task.

    Attributes:
        name: Stem of its files, after the task's name.
        title: Says what to see, from the data.
        draw: Draws onto empty axes; False if there is nothing to draw.
    """

    name: str
    title: Callable[[TaskCurves, TaskComparison], str]
    draw: Callable[[Axes, TaskCurves, TaskComparison], bool]


def make_bench_figure(
    spec: BenchFigure, curves: TaskCurves, comparison: TaskComparison
) -> Figure | None:
    """Draws one figure; None if there is nothing to draw."""
    with in_style():
        figure = Figure(figsize=SIZE_INCHES, layout="constrained")
        axes = figure.subplots()
        if not spec.draw(axes, curves, comparison):
            return None
        axes.set_title(spec.title(curves, comparison))
        handles, labels = axes.get_legend_handles_labels()
        if handles:
            figure.legend(handles, labels, loc="outside lower left", ncols=3)
        return figure


def _look(system: str) -> tuple[str, str, str, str]:
    """Colour, dashes, hatch and marker of a system."""
    index = SYSTEMS.index(system)
    return (
        colour_of(index),
        DASHES[index % len(DASHES)],
        HATCHES[index % len(HATCHES)],
        MARKERS[index % len(MARKERS)],
    )


def _draw_learning(axes: Axes, curves: TaskCurves, x: str) -> bool:
    has_data = False
    for system, runs in curves.curves.items():
        colour, dashes, _, _ = _look(system)
        width, alpha = (0.7, 0.55) if len(runs) > 1 else (2.0, 1.0)
        for run in runs:
            has_data = has_data or len(run.return_mean) > 0
            xs = getattr(run, x)
            axes.plot(xs, run.return_mean, color=colour, lw=width, alpha=alpha, ls=dashes)
        middle = band(runs, x)
        if middle is not None:
            axes.fill_between(
                middle.x, middle.low, middle.high, color=colour, alpha=0.16, linewidth=0
            )
            axes.plot(middle.x, middle.mean, color=colour, linestyle=dashes, linewidth=2)
        axes.plot([], [], color=colour, linestyle=dashes, linewidth=2, label=TITLES[system])
    threshold = curves.task.threshold
    axes.axhline(
        threshold, color=INK, linewidth=1.1, linestyle=BOUND, label=f"threshold {threshold:g}"
    )
    axes.xaxis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.set_xlim(left=0)
    axes.set_ylabel(f"mean return of {units.plural(curves.task.judge.window, 'episode')}")
    return has_data


def _draw_over_time(axes: Axes, curves: TaskCurves, _: TaskComparison) -> bool:
    has_data = _draw_learning(axes, curves, "t_s")
    axes.set_xlabel("time from the first sample (s); thin: each seed, band: 95% of the mean")
    return has_data


def _draw_over_steps(axes: Axes, curves: TaskCurves, _: TaskComparison) -> bool:
    has_data = _draw_learning(axes, curves, "env_steps")
    axes.set_xlabel("env steps collected; thin: each seed, band: 95% of the mean")
    return has_data


def _rows(axes: Axes, comparison: TaskComparison) -> list[SystemSummary]:
    """One row per system, the first on top."""
    summaries = comparison.systems
    axes.set_yticks(range(len(summaries)), [TITLES[summary.system] for summary in summaries])
    axes.set_ylim(len(summaries) - 0.5, -0.5)
    axes.grid(False, axis="y")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    return summaries


def _spread(count: int) -> list[float]:
    """Offsets that keep the points of one row apart."""
    return [0.0 if count < 2 else 0.36 * (i / (count - 1) - 0.5) for i in range(count)]


def _draw_throughput(axes: Axes, _curves: TaskCurves, comparison: TaskComparison) -> bool:
    summaries = _rows(axes, comparison)
    for row, summary in enumerate(summaries):
        if summary.throughput is None:
            continue
        colour, _, hatch, marker = _look(summary.system)
        value = summary.throughput
        axes.barh(
            row, value.estimate, 0.6, color=colour, alpha=0.45, hatch=hatch, edgecolor="white"
        )
        if value.low is not None and value.high is not None:
            axes.plot([value.low, value.high], [row, row], color=INK, linewidth=1.6)
        offsets = [row + offset for offset in _spread(len(summary.throughput_values))]
        axes.plot(summary.throughput_values, offsets, marker, color=colour, markersize=4.5, mec=INK)
        top = max([value.high or 0.0, *summary.throughput_values])
        text = f"  {value.estimate:,.0f}"
        axes.text(top, row, text, va="center", ha="left", fontsize=9, color=INK)
    axes.set_xlim(0, 1.16 * max([1.0, *(v for p in summaries for v in p.throughput_values)]))
    axes.set_xlabel("env steps/s, steady window; bar: IQM, line: 95% interval, points: seeds")
    return any(summary.throughput is not None for summary in summaries)


def _draw_time(axes: Axes, curves: TaskCurves, comparison: TaskComparison) -> bool:
    summaries = _rows(axes, comparison)
    has_data = False
    for row, summary in enumerate(summaries):
        colour, _, _, marker = _look(summary.system)
        results = [
            r
            for r in curves.results.get(summary.system, [])
            if r.outcome in ("reached", "censored")
        ]
        for offset, result in zip(_spread(len(results)), results, strict=True):
            has_data = True
            if result.outcome == "reached":
                reached_s = result.figures.time_to_threshold_s or 0.0
                axes.plot([reached_s], [row + offset], marker, color=colour, markersize=6, mec=INK)
            else:
                trained_s = result.figures.trained_s or 0.0
                axes.plot([trained_s], [row + offset], ">", mfc="white", mec=colour, markersize=8)
        if summary.median_s is not None:
            axes.plot([summary.median_s] * 2, [row - 0.3, row + 0.3], color=INK, linewidth=1.6)
    axes.plot([], [], ">", mfc="white", mec=FAINT, markersize=8, label="not reached by then")
    axes.plot([], [], color=INK, linewidth=1.6, label="median")
    latest_s = max([0.0, *(r.figures.trained_s or 0.0 for r in _censored(curves))])
    axes.set_xlim(0, 1.05 * max(curves.task.budget_s, latest_s) if latest_s else None)
    axes.set_xlabel("time to the threshold from the first sample (s)")
    return has_data


def _censored(curves: TaskCurves) -> list[CellResult]:
    return [r for rs in curves.results.values() for r in rs if r.outcome == "censored"]


def _draw_survival(axes: Axes, curves: TaskCurves, comparison: TaskComparison) -> bool:
    for summary in comparison.systems:
        if not summary.survival:
            continue
        colour, dashes, _, _ = _look(summary.system)
        times = [step.t_s for step in summary.survival] + [comparison.horizon_s]
        shares = [1 - step.share for step in summary.survival]
        axes.step(
            [min(t, comparison.horizon_s) for t in times],
            [*shares, shares[-1]],
            where="post",
            color=colour,
            linestyle=dashes,
            label=TITLES[summary.system],
        )
    axes.set_ylim(-0.03, 1.06)
    axes.set_xlim(0, comparison.horizon_s)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set(xlabel="time from the first sample (s)", ylabel="runs that reached it (Kaplan-Meier)")
    return any(summary.survival for summary in comparison.systems)


def _draw_phases(axes: Axes, curves: TaskCurves, comparison: TaskComparison) -> bool:
    summaries = _rows(axes, comparison)
    has_data = False
    for row, summary in enumerate(summaries):
        lengths = [
            _phases(r) for r in curves.results.get(summary.system, []) if r.figures.env_steps
        ]
        if not lengths:
            continue
        has_data = True
        left = 0.0
        for index, (_name, colour, hatch) in enumerate(PHASES):
            length = sum(each[index] for each in lengths) / len(lengths)
            axes.barh(
                row, length, 0.6, left=left, color=colour, hatch=hatch, edgecolor="white", lw=0.6
            )
            left += length
        axes.text(left, row, f"  {units.seconds(left)}", va="center", fontsize=9, color=INK)
    for name, colour, hatch in PHASES:
        axes.barh([0], [0], color=colour, hatch=hatch, edgecolor="white", label=name)
    axes.set_xlim(0, 1.15 * axes.dataLim.x1 if has_data else 1)
    axes.set_xlabel("seconds since launch, mean over seeds")
    return has_data


def _phases(result: CellResult) -> list[float]:
    """Lengths in seconds, one for each of `PHASES`; without a threshold the stop ends learning."""
    figures = result.figures
    first_s = figures.first_sample_s or 0.0
    stop_s = result.stop_asked_s or figures.last_sample_s or first_s
    update_s = stop_s if figures.first_update_s is None else figures.first_update_s
    reached_s = stop_s if figures.reached_s is None else figures.reached_s
    ends = [0.0, first_s, update_s, reached_s, stop_s, result.ended_s or stop_s]
    for index in range(1, len(ends) - 1):  # none ends after the stop, nor before its predecessor
        ends[index] = max(ends[index - 1], min(ends[index], stop_s))
    return [max(0.0, end - start) for start, end in itertools.pairwise(ends)]


def _draw_lag(axes: Axes, curves: TaskCurves, _: TaskComparison) -> bool:
    total = sum(curves.lag_steps.values())
    if not total:
        return False
    lags, counts = zip(*curves.lag_steps.items(), strict=True)
    if max(lags) < NUM_BARS:
        bars = axes.bar(lags, [n / total for n in counts], 0.6, color=colour_of(0))
        axes.bar_label(bars, [f"{n / total:.1%}" for n in counts], padding=2, fontsize=8.5)
        axes.set_ylim(0, 1.12)
    else:  # as samples from a replay store have it
        weights = [n / total for n in counts]
        axes.hist(lags, NUM_BARS, weights=weights, color=colour_of(0), edgecolor="white")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=12, integer=True))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.grid(False, axis="x")
    axes.set(xlabel="lag (weights versions)", ylabel="share of consumed env steps")
    return True


def _title_of_lag(curves: TaskCurves, _: TaskComparison) -> str:
    highest = max(curves.lag_steps, default=0)
    plural = "" if highest == 1 else "s"
    return f"TianJi's trained env steps are at most {highest} version{plural} old"


def _title_of_survival(_curves: TaskCurves, comparison: TaskComparison) -> str:
    reached = sum(summary.outcomes.get("reached", 0) for summary in comparison.systems)
    total = sum(summary.num_cells for summary in comparison.systems)
    return f"{reached} of {units.plural(total, 'run')} reach the threshold"


BENCH_FIGURES: Sequence[BenchFigure] = (
    BenchFigure("throughput", lambda _, c: title_of_throughput(c), _draw_throughput),
    BenchFigure("time_to_threshold", lambda _, c: title_of_time(c), _draw_time),
    BenchFigure("learning_over_time", lambda *_: "Mean return over time", _draw_over_time),
    BenchFigure("learning_over_steps", lambda *_: "Mean return over env steps", _draw_over_steps),
    BenchFigure("reached_over_time", _title_of_survival, _draw_survival),
    BenchFigure("phases", lambda *_: "From launch to end", _draw_phases),
    BenchFigure("staleness", _title_of_lag, _draw_lag),
)
