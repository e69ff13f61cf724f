"""The figures of a reproduction: a small panel for each row, as returns differ in scale."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from tianji_cli.bench.published.compare import PublishedComparison, RowResult, runs_of
from tianji_cli.bench.published.records import PublishedRun
from tianji_cli.bench.study.records import StudyCell
from tianji_cli.plotting.figure_style import (
    BLUE,
    FAINT,
    INK,
    VERMILLION,
    dashes_of,
    in_style,
)
from tianji_cli.plotting.figures import Artist, Axes, Figure, FuncFormatter, MaxNLocator
from tianji_cli.render.bench.published_text import (
    title_of_agreement,
    title_of_learning,
    verdict_text,
)

Runs = Mapping[StudyCell, PublishedRun]
NUM_COLUMNS = 3
PANEL_INCHES = (2.5, 2.0)
LEGEND_INCHES = 0.9
SPREAD = 0.16
"""Runs of one row stand side by side within this distance of their place."""
HALF_WIDTH = 0.26
PUBLISHED, OURS = 0, 1
"""Places on the x axis of the overview."""
BAND_ALPHA = 0.15


def make_agreement(comparison: PublishedComparison) -> Figure:
    """Published mean and spread beside our runs, their mean and its interval."""

    def draw(axes: Axes, row: RowResult) -> None:
        _draw_published(axes, row)
        _draw_ours(axes, row)
        axes.set_xlim(-0.6, 1.6)
        axes.set_xticks([PUBLISHED, OURS], ["published", "ours"])
        axes.grid(False, axis="x")

    return _panels(comparison, draw, title_of_agreement(comparison))


def make_learning(comparison: PublishedComparison, runs: Runs) -> Figure:
    """Mean training return over env steps, and the published mean ± spread."""

    def draw(axes: Axes, row: RowResult) -> None:
        published = row.published
        low, high = published.mean - published.spread, published.mean + published.spread
        if row.judge == "training":
            axes.axhspan(low, high, color=VERMILLION, alpha=BAND_ALPHA, linewidth=0)
        axes.axhline(
            published.mean, color=VERMILLION, linewidth=1.1, label="published (band: ± its spread)"
        )
        for number, run in enumerate(runs_of(runs, row.row)):
            axes.plot(
                run.curve.env_steps,
                run.curve.return_mean,
                color=BLUE,
                linestyle=dashes_of(number),
                linewidth=0.9,
                label="one run" if number == 0 else None,
            )
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=3))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / 1000:,.10g} k"))

    return _panels(comparison, draw, title_of_learning(comparison))


def _panels(
    comparison: PublishedComparison, draw: Callable[[Axes, RowResult], None], title: str
) -> Figure:
    rows = comparison.rows
    num_columns = min(NUM_COLUMNS, len(rows))
    num_lines = math.ceil(len(rows) / num_columns)
    with in_style():
        width = max(num_columns, 2) * PANEL_INCHES[0]
        size = (width, num_lines * PANEL_INCHES[1] + LEGEND_INCHES)
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(num_lines, num_columns, squeeze=False)
        panels: list[Axes] = list(grid.flatten())
        for axes, row in zip(panels, rows, strict=False):
            draw(axes, row)
            axes.set_title(f"{row.row}: {verdict_text(row)}", fontsize=8.5)
            axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
            axes.tick_params(labelsize=8)
        for axes in panels[len(rows) :]:
            axes.remove()
        figure.suptitle(title, x=0.01, ha="left", fontsize=10.5, fontweight="bold")
        found = _labels(panels[: len(rows)])
        figure.legend(list(found.values()), list(found), loc="outside lower left", ncols=2)
        return figure


def _labels(panels: Sequence[Axes]) -> dict[str, Artist]:
    """Handles of the legend by label, each once."""
    found: dict[str, Artist] = {}
    for axes in panels:
        handles, labels = axes.get_legend_handles_labels()
        found = {**dict(zip(labels, handles, strict=True)), **found}
    return found


def _draw_published(axes: Axes, row: RowResult) -> None:
    published = row.published
    over = "runs" if published.runs > 1 else "evaluation episodes"
    axes.errorbar(
        PUBLISHED,
        published.mean,
        yerr=published.spread,
        fmt="s",
        color=VERMILLION if published.runs > 1 else FAINT,
        capsize=3,
        markersize=5,
        linewidth=1.2,
        label=f"published ± std over {over}",
    )


def _draw_ours(axes: Axes, row: RowResult) -> None:
    values = [run.return_mean for run in row.runs]
    for number, value in enumerate(values):
        share = 2 * number / max(1, len(values) - 1) - 1 if len(values) > 1 else 0.0
        axes.plot(
            OURS + share * SPREAD,
            value,
            "o",
            markerfacecolor="none",
            markeredgecolor=BLUE,
            markersize=4.5,
            label="one run of ours" if number == 0 else None,
        )
    if row.ours is None:
        return
    axes.hlines(row.ours.estimate, OURS - HALF_WIDTH, OURS + HALF_WIDTH, color=INK, linewidth=2)
    if row.ours.low is not None and row.ours.high is not None:
        label = "mean of ours, 95% interval"
        axes.vlines(OURS, row.ours.low, row.ours.high, color=INK, linewidth=1.2, label=label)
