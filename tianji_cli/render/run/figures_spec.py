"""What a figure of a report is: one plot, or several small ones side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tianji_cli.analysis.curves import RunCurves
from tianji_cli.plotting.figure_style import SIZE_INCHES, in_style
from tianji_cli.plotting.figures import Artist, Axes, Figure
from tianji_cli.render.run.figures_axes import TIME, say_no_data

PANEL_INCHES, PANELS_INCHES = 1.35, 0.75
"""Height of a row of small plots, and of title and legend."""
MAX_LEGEND = 84
"""Characters beside each other, with room for the lines."""

Runs = Sequence[RunCurves]


@dataclass(frozen=True)
class FigureSpec:
    """A figure that a report contains.

    Attributes:
        name: Stem of its files.
        title: Says what to see, from the data.
        draw: Draws onto empty axes; returns False if there is nothing to draw.
        suits: Whether it means anything for these runs.
    """

    name: str
    title: Callable[[Runs], str]
    draw: Callable[[Axes, Runs], bool]
    suits: Callable[[Runs], bool] = bool

    def compose(self, runs: Runs) -> Figure:
        """Draws it; without data it says so."""
        figure = Figure(figsize=SIZE_INCHES, layout="constrained")
        axes = figure.subplots()
        if not self.draw(axes, runs):
            axes.clear()
            say_no_data(axes)
        axes.set_title(self.title(runs))
        return figure


@dataclass(frozen=True)
class PanelsSpec:
    """A figure of small plots with a common x axis, two in a row.

    Attributes:
        name, title, suits: As of `FigureSpec`.
        panels: Names of the plots, at least one.
        draw: Draws the plot of this name.
        x: Label of the common axis.
    """

    name: str
    title: Callable[[Runs], str]
    panels: Callable[[Runs], Sequence[str]]
    draw: Callable[[Axes, Runs, str], None]
    suits: Callable[[Runs], bool] = bool
    x: str = TIME

    def compose(self, runs: Runs) -> Figure:
        """Draws all plots; the lowest of each column have the label of the x axis."""
        names = self.panels(runs)
        num_columns = min(len(names), 2)
        num_rows = -(-len(names) // num_columns)
        size = (SIZE_INCHES[0], PANELS_INCHES + num_rows * PANEL_INCHES)
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(num_rows, num_columns, squeeze=False)
        for number, axes in enumerate(grid.flat):
            if number < len(names):
                self.draw(axes, runs, names[number])
            else:
                axes.set_axis_off()
            is_lowest = number + num_columns >= len(names)
            axes.set_xlabel(self.x if is_lowest else "")
        figure.suptitle(self.title(runs), x=0.01, ha="left", fontsize=10.5, fontweight="bold")
        return figure


def make_figure(spec: FigureSpec | PanelsSpec, runs: Runs) -> Figure:
    """Draws one figure, with one legend for all that it shows."""
    with in_style():
        figure = spec.compose(runs)
        named: dict[str, Artist] = {}
        for axes in figure.axes:
            handles, labels = axes.get_legend_handles_labels()
            for handle, label in zip(handles, labels, strict=True):
                named.setdefault(label, handle)
        if named:
            columns = _num_columns(list(named))
            figure.legend(
                list(named.values()), list(named), loc="outside lower left", ncols=columns
            )
        return figure


def _num_columns(labels: Sequence[str]) -> int:
    """One row if it fits, else columns of equal width, at least two."""
    if sum(len(label) + 8 for label in labels) <= MAX_LEGEND:
        return len(labels)
    return max(2, MAX_LEGEND // (max(len(label) for label in labels) + 8))
