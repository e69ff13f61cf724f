"""The figures of a study: every seed, and in black, which print keeps, medians with intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tianji_cli.bench.statistics import Interval
from tianji_cli.bench.study.compare import (
    TaskResult,
    VariantResult,
    final_return_of,
    is_judged,
    mean_return_of,
    mean_return_over_time_of,
    runs_of,
    steps_of,
    throughput_of,
)
from tianji_cli.bench.study.records import StudyCell, StudyRun
from tianji_cli.plotting.figure_style import (
    BLUE,
    INK,
    SIZE_INCHES,
    VERMILLION,
    colour_of,
    dashes_of,
    in_style,
)
from tianji_cli.plotting.figures import Axes, Figure, FuncFormatter, MaxNLocator
from tianji_cli.render.bench.study_text import (
    title_of_comparison,
    title_of_learning,
    title_of_returns,
)

Runs = Mapping[StudyCell, StudyRun]
SPREAD = 0.22
"""Seeds of one variant stand side by side within this distance of their place."""
HALF_WIDTH = 0.32
HEADROOM, HEADROOM_CENSORED = 1.12, 1.35
"""Triangles with their counts stand above all seeds."""
BOUND = (0, (6, 3))


def make_comparison(task: TaskResult, runs: Runs) -> Figure | None:
    """Throughput over the variants, and below it env steps to the threshold, if any run reached it.

    Returns:
        None for a single variant.
    """
    if len(task.variants) < 2 or not any(item.num_runs for item in task.variants):
        return None
    has_steps = any(item.steps_to_threshold for item in task.variants)
    has_rates = task.times_not_compared is None
    num_panels = has_steps + has_rates
    if not num_panels:
        return None
    with in_style():
        size = (SIZE_INCHES[0], 0.7 * num_panels * SIZE_INCHES[1])
        figure = Figure(figsize=size, layout="constrained")
        panels: list[Axes] = list(figure.subplots(num_panels, 1, sharex=True, squeeze=False)[:, 0])
        if has_rates:
            _draw_throughput(panels[0], task, runs)
        if has_steps:
            _draw_steps(panels[-1], task, runs)
        lowest = panels[-1]
        _name_variants(lowest, task)
        panels[0].set_title(title_of_comparison(task))
        _legend(lowest, has_censored=has_steps and any(v.num_censored for v in task.variants))
        handles, labels = lowest.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower left", ncols=3)
        return figure


def _draw_throughput(axes: Axes, task: TaskResult, runs: Runs) -> None:
    for index, item in enumerate(task.variants):
        own = runs_of(runs, task.task, item.variant)
        _draw_seeds(axes, index, [throughput_of(run) for run in own])
        _draw_median(axes, index, item.consume_per_s)
    axes.set_ylabel("env steps/s consumed")
    _finish(axes, HEADROOM)


def _draw_steps(axes: Axes, task: TaskResult, runs: Runs) -> None:
    for index, item in enumerate(task.variants):
        own = runs_of(runs, task.task, item.variant)
        _draw_seeds(axes, index, [steps_of(run) for run in own])
        _draw_median(axes, index, item.steps_to_threshold)
    goal = "" if task.threshold is None else f" to {task.threshold:g}"
    axes.set_ylabel(f"env steps{goal}")
    is_censored = any(item.num_censored for item in task.variants)
    _finish(axes, HEADROOM_CENSORED if is_censored else HEADROOM)
    _draw_censored(axes, task)


def _name_variants(axes: Axes, task: TaskResult) -> None:
    axes.set_xticks(range(len(task.variants)), [item.variant for item in task.variants])
    axes.set_xlim(-0.6, len(task.variants) - 0.4)
    axes.set_xlabel(task.axis)


def make_returns(task: TaskResult, runs: Runs) -> Figure | None:
    """Final return over the variants, and below it those over all env steps and over the time, if
    curves were kept.

    Returns:
        None for a single variant, or if no run has finished an episode.
    """
    if len(task.variants) < 2 or not any(item.final_return for item in task.variants):
        return None
    kinds = [kind for kind in _return_kinds(task) if any(map(kind.median, task.variants))]
    with in_style():
        size = (SIZE_INCHES[0], 0.7 * len(kinds) * SIZE_INCHES[1])
        figure = Figure(figsize=size, layout="constrained")
        panels: list[Axes] = list(figure.subplots(len(kinds), 1, sharex=True, squeeze=False)[:, 0])
        for axes, kind in zip(panels, kinds, strict=True):
            for index, item in enumerate(task.variants):
                own = filter(is_judged, runs_of(runs, task.task, item.variant))
                _draw_seeds(axes, index, [kind.of(run) for run in own])
                _draw_median(axes, index, kind.median(item))
            axes.set_ylabel(kind.label)
            axes.yaxis.set_major_locator(MaxNLocator(nbins=6))
            axes.grid(False, axis="x")
        _name_variants(panels[-1], task)
        panels[0].set_title(title_of_returns(task))
        _legend(panels[-1], has_censored=False)
        handles, names = panels[-1].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower left", ncols=3)
        return figure


@dataclass(frozen=True)
class _ReturnKind:
    """One panel: what it is called, of a run, and of a variant."""

    label: str
    of: Callable[[StudyRun], float | None]
    median: Callable[[VariantResult], Interval | None]


def _return_kinds(task: TaskResult) -> list[_ReturnKind]:
    """Those that can be computed for the task."""
    steps, time_s = task.horizon_env_steps, task.horizon_s
    found = [_ReturnKind("final return", final_return_of, lambda item: item.final_return)]
    if steps is not None:
        found.append(
            _ReturnKind(
                "return over env steps",
                lambda run: mean_return_of(run, steps),
                lambda item: item.mean_return,
            )
        )
    if time_s is not None:
        found.append(
            _ReturnKind(
                "return over time",
                lambda run: mean_return_over_time_of(run, time_s),
                lambda item: item.mean_return_over_time,
            )
        )
    return found


def _draw_seeds(axes: Axes, place: int, values: Sequence[float | None]) -> None:
    known = [value for value in values if value is not None and math.isfinite(value)]
    for number, value in enumerate(known):
        x = place + (2 * number / max(1, len(known) - 1) - 1) * SPREAD if len(known) > 1 else place
        axes.plot(x, value, "o", markerfacecolor="none", markeredgecolor=BLUE, markersize=5)


def _draw_median(axes: Axes, place: int, interval: Interval | None) -> None:
    if interval is None:
        return
    axes.hlines(interval.estimate, place - HALF_WIDTH, place + HALF_WIDTH, color=INK, linewidth=2)
    if interval.low is not None and interval.high is not None:
        axes.vlines(place, interval.low, interval.high, color=INK, linewidth=1.2)


def _finish(axes: Axes, headroom: float) -> None:
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6))
    axes.grid(False, axis="x")
    top = axes.dataLim.y1
    if math.isfinite(top) and top > 0:
        axes.set_ylim(0, headroom * top)


def _draw_censored(axes: Axes, task: TaskResult) -> None:
    """A triangle at the upper edge, with a count, where runs did not reach the threshold."""
    for place, item in enumerate(task.variants):
        if item.num_censored:
            top = axes.get_ylim()[1]
            axes.plot(place, top, "^", color=VERMILLION, markersize=8, clip_on=False)
            axes.annotate(
                f"{item.num_censored} of {item.num_runs}",
                (place, top),
                xytext=(0, -14),
                textcoords="offset points",
                ha="center",
                fontsize=8,
            )


def _legend(axes: Axes, *, has_censored: bool) -> None:
    axes.plot([], [], "o", markerfacecolor="none", markeredgecolor=BLUE, label="one seed")
    axes.plot([], [], color=INK, linewidth=2, label="median, 95% interval")
    if has_censored:
        axes.plot([], [], "^", color=VERMILLION, label="not reached (right-censored)")


def make_learning(task: TaskResult, runs: Runs) -> Figure | None:
    """Mean return over env steps, one line for each seed; None if no curve was kept."""
    if not any(len(run.curve.t_s) for cell, run in runs.items() if cell.task == task.task):
        return None
    with in_style():
        figure = Figure(figsize=SIZE_INCHES, layout="constrained")
        axes = figure.subplots()
        for index, item in enumerate(task.variants):
            own = runs_of(runs, task.task, item.variant)
            _draw_curves(axes, item.variant, index, own, is_only=len(task.variants) == 1)
        if task.threshold is not None:
            label = f"threshold {task.threshold:g}"
            axes.axhline(task.threshold, color=INK, linewidth=1.1, linestyle=BOUND, label=label)
        axes.set(xlabel="env steps collected", ylabel="mean return of the last episodes")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
        axes.set_xlim(left=0)
        axes.set_title(title_of_learning(task))
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower left", ncols=4)
        return figure


def _draw_curves(
    axes: Axes, name: str, index: int, runs: Sequence[StudyRun], *, is_only: bool
) -> None:
    """Of one variant; the seeds of a single variant are distinguished, those of several are not."""
    for number, run in enumerate(runs):
        look = number if is_only else index
        label = f"seed {run.cell.seed}" if is_only else (name if number == 0 else None)
        axes.plot(
            run.curve.env_steps,
            run.curve.return_mean,
            color=colour_of(look),
            linestyle=dashes_of(look),
            linewidth=1.3 if is_only else 0.9,
            label=label,
        )
