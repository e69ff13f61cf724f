"""Common parts of the figures of runs: axes, and bars of several runs side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tianji_cli.plotting.figure_style import FAINT, HATCHES, INK, colour_of, dashes_of, short_label
from tianji_cli.plotting.figures import Axes, FuncFormatter, MaxNLocator

if TYPE_CHECKING:
    from tianji_cli.analysis.curves import RunCurves
    from tianji_cli.plotting.figures import Axes


TIME = "time since training started (s)"
ENV_STEPS = "env steps collected"
BOUND = (0, (6, 3))
"""Long dashes, unlike those of any run."""


def say_no_data(axes: Axes) -> None:
    """Writes "no data" into an empty figure."""
    axes.grid(False)
    axes.set(xticks=[], yticks=[])
    axes.text(
        0.5,
        0.5,
        "no data",
        transform=axes.transAxes,
        ha="center",
        va="center",
        color=FAINT,
        fontsize=14,
    )


def tick(value: float, _position: int | None = None) -> str:
    """The label of a tick: short, and exact."""
    return f"{value / 1e6:,.10g} M" if abs(value) >= 1e6 else f"{value:,.10g}"


def number_axes(axes: Axes, *, x: str, y: str, from_zero: bool = False) -> None:
    axes.set(xlabel=x, ylabel=y)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(tick))
    axes.yaxis.set_major_formatter(FuncFormatter(tick))
    axes.set_xlim(left=0)
    if from_zero and axes.dataLim.y1 > 0:
        axes.set_ylim(0, 1.08 * axes.dataLim.y1)


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


def draw_joints(axes: Axes, run: RunCurves, x: str, colour: str) -> None:
    """A thin line wherever the run resumes the checkpoint of another."""
    for number, (t_s, env_steps) in enumerate(run.joints):
        axes.axvline(
            t_s if x == "t_s" else env_steps,
            color=colour,
            linewidth=0.8,
            linestyle="-.",
            label="" if number else "resumed",
        )
