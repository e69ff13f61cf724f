"""The figure of a scaling benchmark: throughput and time to the threshold over nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tianji_cli import units
from tianji_cli.bench.scaling.compare import ScalingComparison, ScalingRow
from tianji_cli.plotting.figure_style import BLUE, FAINT, INK, SIZE_INCHES, VERMILLION, in_style
from tianji_cli.plotting.figures import (
    Axes,
    Figure,
    FixedLocator,
    FuncFormatter,
    LogLocator,
    NullLocator,
)

IDEAL = (0, (6, 3))
CENSORED: dict[str, Any] = {
    "marker": "^",
    "linestyle": "none",
    "color": VERMILLION,
    "markerfacecolor": "none",
    "markersize": 7,
}
"""A run that had not reached the threshold when its budget was used up."""


def scaling_figure(comparison: ScalingComparison) -> Figure:
    """Two panels with one axis of nodes, both logarithmic, so that ideal scaling is straight."""
    with in_style():
        figure = Figure(figsize=(SIZE_INCHES[0] * 1.35, SIZE_INCHES[1]), layout="constrained")
        left, right = figure.subplots(1, 2)
        _draw_throughput(left, comparison.rows)
        _draw_time(right, comparison)
        for axes in (left, right):
            _label_nodes(axes, [row.nodes for row in comparison.rows])
            axes.legend(loc="best")
        figure.supxlabel(_caption(comparison), fontsize=8.5, color=FAINT)
        return figure


def _draw_throughput(axes: Axes, rows: Sequence[ScalingRow]) -> None:
    known = [row for row in rows if row.throughput is not None]
    for row in known:
        count = len(row.throughput_values)
        axes.plot([row.nodes] * count, row.throughput_values, "o", color=BLUE, ms=4, alpha=0.5)
    estimates = [row.throughput.estimate for row in known if row.throughput]
    nodes = [row.nodes for row in known]
    axes.plot(nodes, estimates, color=BLUE, label="collected, IQM over seeds")
    if known:
        ideal = [estimates[0] * n / nodes[0] for n in nodes]
        label = f"{units.plural(nodes[0], 'node')} × number of nodes"
        axes.plot(nodes, ideal, color=INK, linestyle=IDEAL, linewidth=1.1, label=label)
    last = known[-1] if known else None
    axes.set_title(
        f"{last.nodes} nodes collect {last.speedup.estimate:.2f} times as much"
        if last is not None and last.speedup is not None
        else "Throughput"
    )
    axes.set_yscale("log")
    axes.set_ylabel("env steps/s over all nodes")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.yaxis.set_minor_locator(NullLocator())


def _draw_time(axes: Axes, comparison: ScalingComparison) -> None:
    rows = comparison.rows
    for row in rows:
        times = [time for time in row.time_values_s if time is not None]
        axes.plot([row.nodes] * len(times), times, "s", color=VERMILLION, ms=4, alpha=0.5)
        censored = len(row.time_values_s) - len(times)
        axes.plot([row.nodes] * censored, [comparison.budget_s] * censored, **CENSORED)
    if any(None in row.time_values_s for row in rows):
        axes.plot([], [], label=f"not reached in {comparison.budget_s:g} s", **CENSORED)
    known = [row for row in rows if row.median_time_s is not None]
    axes.plot(
        [row.nodes for row in known],
        [row.median_time_s for row in known if row.median_time_s is not None],
        color=VERMILLION,
        label="median over seeds",
    )
    last = rows[-1]
    axes.set_title(
        f"{last.nodes} nodes reach {comparison.threshold:g} in {1 / last.time_ratio.estimate:.0%}"
        " of the time"
        if last.time_ratio is not None
        else f"Time to {comparison.threshold:g}"
    )
    axes.set_ylim(bottom=0)
    if rows:
        axes.set_xlim(rows[0].nodes * 0.9, rows[-1].nodes * 1.1)
    axes.set_ylabel(f"time to a mean return of {comparison.threshold:g} (s)")


def _label_nodes(axes: Axes, nodes: Sequence[int]) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(list(nodes)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel("nodes, each with a compute group")


def _caption(comparison: ScalingComparison) -> str:
    if not comparison.step_latency_ms:
        return f"controller with {units.plural(comparison.num_cores, 'core')}"
    return (
        f"environment latency emulated: {comparison.step_latency_ms:g} ms per vector step;"
        f" lab hosts share {units.plural(comparison.num_cores, 'core')}"
    )
