"""The figures of a search: its history, what mattered, values over each key, learning curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from engine.spec import Scalar
from tianji_cli.bench.search.spec import CategoricalRange, Range
from tianji_cli.bench.study.compare import TaskResult, runs_of
from tianji_cli.bench.study.records import StudyCell, StudyRun
from tianji_cli.bench.study.trials import SearchResult, TrialResult
from tianji_cli.plotting.figure_style import (
    BLUE,
    FAINT,
    INK,
    SIZE_INCHES,
    VERMILLION,
    in_style,
    short_label,
)
from tianji_cli.plotting.figures import Axes, Figure, FuncFormatter, MaxNLocator
from tianji_cli.render.bench.search_text import (
    scalar_text,
    short_key,
    title_of_history,
    title_of_importance,
    title_of_slices,
    title_of_trials,
)

Runs = Mapping[StudyCell, StudyRun]
MAX_COLUMNS = 3


def make_history(task: TaskResult) -> Figure | None:
    """The value of each trial, and the best so far; None if no trial is complete."""
    found = task.search
    if found is None or found.best is None:
        return None
    with in_style():
        figure = Figure(figsize=SIZE_INCHES, layout="constrained")
        axes = figure.subplots()
        known = _known(found)
        numbers, values = [n for n, _ in known], [value for _, value in known]
        best = max if found.direction == "maximize" else min
        so_far = [best(values[: index + 1]) for index in range(len(values))]
        axes.step(
            [*numbers, len(found.trials) - 1], [*so_far, so_far[-1]], where="post", color=INK,
            label="best so far",
        )  # fmt: skip
        axes.plot(numbers, values, "o", color=BLUE, label="complete", markersize=5)
        _mark_others(axes, found)
        axes.set(xlabel="trial", ylabel=_label(found))
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
        axes.set_title(title_of_history(task))
        _legend(figure, axes)
        return figure


def _known(found: SearchResult) -> list[tuple[int, float]]:
    """Number and value of the complete trials."""
    return [(t.trial, t.value) for t in found.trials if t.value is not None]


def _mark_others(axes: Axes, found: SearchResult) -> None:
    """Trials without a value stand at the lower edge."""
    for state, marker, colour in (("pruned", "|", FAINT), ("failed", "x", VERMILLION)):
        numbers = [trial.trial for trial in found.trials if trial.state == state]
        if numbers:
            axes.plot(
                numbers, [0.0] * len(numbers), marker, color=colour, markersize=8, clip_on=False,
                transform=axes.get_xaxis_transform(), label=state,
            )  # fmt: skip


def make_importance(task: TaskResult) -> Figure | None:
    """One bar for each key, the most important on top; None if it is not known."""
    found = task.search
    if found is None or not found.importance:
        return None
    with in_style():
        keys = list(found.importance)[::-1]
        height = 1.2 + 0.42 * len(keys)
        figure = Figure(figsize=(SIZE_INCHES[0], height), layout="constrained")
        axes = figure.subplots()
        shares = [found.importance[key] for key in keys]
        bars = axes.barh([short_label(key) for key in keys], shares, color=BLUE, height=0.6)
        axes.bar_label(bars, labels=[f"{share:.0%}" for share in shares], padding=4)
        axes.set_xlim(0, 1.1 * max(shares))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
        axes.grid(False, axis="y")
        axes.set_xlabel("importance (PED-ANOVA)")
        _title(figure, title_of_importance(task))
        return figure


def make_slices(task: TaskResult, space: Mapping[str, Range]) -> Figure | None:
    """The value of each trial over each key; None if no trial is complete."""
    found = task.search
    if found is None or found.best is None:
        return None
    num_columns = min(MAX_COLUMNS, len(space))
    num_rows = math.ceil(len(space) / num_columns)
    with in_style():
        size = (SIZE_INCHES[0], 0.35 + 0.72 * num_rows * SIZE_INCHES[1])
        figure = Figure(figsize=size, layout="constrained")
        panels: list[Axes] = list(
            figure.subplots(num_rows, num_columns, sharey=True, squeeze=False).flat
        )
        for axes, (key, bounds) in zip(panels, space.items(), strict=False):
            _draw_slice(axes, found, key, bounds)
        for axes in panels[len(space) :]:
            axes.remove()
        for row in range(num_rows):
            panels[row * num_columns].set_ylabel(_label(found))
        _title(figure, title_of_slices(task))
        _legend(figure, panels[0])
        return figure


def _draw_slice(axes: Axes, found: SearchResult, key: str, bounds: Range) -> None:
    complete = [trial for trial in found.trials if trial.value is not None]
    others = [trial for trial in complete if trial.trial != found.best]
    best = [trial for trial in complete if trial.trial == found.best]
    for trials, colour, label in ((others, BLUE, "complete"), (best, VERMILLION, "best")):
        places = [_place(trial.params[key], bounds) for trial in trials]
        values = [trial.value for trial in trials if trial.value is not None]
        axes.plot(places, values, "o", color=colour, markersize=5, label=label)
    _scale(axes, bounds)
    axes.set_xlabel(short_key(key))


def _place(value: Scalar, bounds: Range) -> float:
    """On the axis; choices stand side by side."""
    if isinstance(bounds, CategoricalRange):
        return float(next(i for i, choice in enumerate(bounds.choices) if choice == value))
    assert isinstance(value, int | float)
    return float(value)


def _scale(axes: Axes, bounds: Range) -> None:
    if isinstance(bounds, CategoricalRange):
        names = [short_label(scalar_text(choice)) for choice in bounds.choices]
        axes.set_xticks(range(len(names)), names)
        axes.set_xlim(-0.5, len(names) - 0.5)
    elif bounds.log:
        axes.set_xscale("log")
        axes.set_xlim(0.9 * bounds.low, 1.1 * bounds.high)
    else:
        margin = 0.04 * (bounds.high - bounds.low)
        axes.set_xlim(bounds.low - margin, bounds.high + margin)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=4))


def make_trials(task: TaskResult, runs: Runs) -> Figure | None:
    """Mean return over time of all runs, the best trial in front; None if no curve was kept."""
    found = task.search
    if found is None:
        return None
    drawn = [(trial, runs_of(runs, task.task, trial.variant)) for trial in found.trials]
    if not any(run.curve.t_s for _, own in drawn for run in own):
        return None
    with in_style():
        figure = Figure(figsize=SIZE_INCHES, layout="constrained")
        axes = figure.subplots()
        drawn.sort(key=lambda item: (item[0].trial == found.best, item[0].state == "complete"))
        for trial, own in drawn:
            _draw_curves(axes, found, trial, own)
        if task.threshold is not None:
            label = f"threshold {task.threshold:g}"
            axes.axhline(task.threshold, color=INK, linewidth=1.1, linestyle=":", label=label)
        axes.set(xlabel="seconds of training", ylabel="mean return of the last episodes")
        axes.set_xlim(left=0)
        axes.set_title(title_of_trials(task))
        _legend(figure, axes)
        return figure


def _draw_curves(
    axes: Axes, found: SearchResult, trial: TrialResult, runs: Sequence[StudyRun]
) -> None:
    colour, width, dashes = BLUE, 0.9, "-"
    label: str = trial.state
    if trial.trial == found.best:
        colour, width, label = VERMILLION, 2.0, "best"
    elif trial.state != "complete":
        colour, dashes = FAINT, "--"
    for run in runs:
        axes.plot(
            run.curve.t_s, run.curve.return_mean, color=colour, linewidth=width, linestyle=dashes,
            label=label,
        )  # fmt: skip


def _title(figure: Figure, text: str) -> None:
    """Above all of the figure: names of keys beside the axes leave too little room."""
    figure.suptitle(text, x=0.01, ha="left", fontsize=10.5, weight="bold")


def _label(found: SearchResult) -> str:
    return f"{found.objective} (s)" if found.objective == "time to threshold" else found.objective


def _legend(figure: Figure, axes: Axes) -> None:
    """Each label once."""
    handles, labels = axes.get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    figure.legend(once.values(), once.keys(), loc="outside lower left", ncols=4)
