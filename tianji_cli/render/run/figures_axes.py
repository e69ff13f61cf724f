"""Common parts of the axes of all figures of runs."""

from __future__ import annotations

from tianji_cli.plotting.figure_style import FAINT
from tianji_cli.plotting.figures import Axes, FuncFormatter, MaxNLocator

TIME = "time since training started (s)"
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


def _tick(value: float, _position: int | None = None) -> str:
    return f"{value / 1e6:,.10g} M" if abs(value) >= 1e6 else f"{value:,.10g}"


def number_axes(axes: Axes, *, x: str, y: str, from_zero: bool = False) -> None:
    axes.set(xlabel=x, ylabel=y)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(_tick))
    axes.yaxis.set_major_formatter(FuncFormatter(_tick))
    axes.set_xlim(left=0)
    if from_zero and axes.dataLim.y1 > 0:
        axes.set_ylim(0, 1.08 * axes.dataLim.y1)
