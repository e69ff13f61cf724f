"""The bars of one run in a histogram of several runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tianji_cli.plotting.figure_style import HATCHES, INK, colour_of, dashes_of, short_label

if TYPE_CHECKING:
    from tianji_cli.analysis.curves import RunCurves
    from tianji_cli.plotting.figures import Axes

MAX_BAR_RUNS = len(HATCHES)


def draw_bars(axes: Axes, run: RunCurves, index: int, num_runs: int) -> None:
    """Grouped bars: the run number `index` of `num_runs`."""
    width = 0.7 / num_runs
    centres = run.histogram["lag"] + (index - (num_runs - 1) / 2) * width
    bars = axes.bar(
        centres,
        run.histogram["share"],
        0.92 * width,
        color=colour_of(index),
        hatch=HATCHES[index],
        edgecolor="white",
        linewidth=0,
        label=short_label(run.label) if num_runs > 1 else None,
    )
    if num_runs <= 2:
        texts = [f"{share:.1%}" for share in run.histogram["share"]]
        axes.bar_label(bars, texts, padding=2, fontsize=8.5, color=INK)


def draw_stairs(axes: Axes, run: RunCurves, index: int, num_runs: int) -> None:
    """An outline, filled for a single run; for more lags than bars could show."""
    if not len(run.histogram):
        return
    edges = np.append(run.histogram["lag"], run.histogram["lag"].iloc[-1] + 1) - 0.5
    axes.stairs(
        run.histogram["share"].to_numpy(),
        edges,
        fill=num_runs == 1,
        label=short_label(run.label) if num_runs > 1 else None,
        color=colour_of(index),
        linestyle=dashes_of(index),
    )
