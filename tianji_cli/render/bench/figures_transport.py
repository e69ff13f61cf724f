"""The figure of a benchmark of transport: rates over sizes, with the limit drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tianji_cli.bench.transport.compare import WIRE, TransportComparison, TransportRow
from tianji_cli.bench.transport.methods import LIMIT, OWN
from tianji_cli.plotting.figure_style import (
    BLUE,
    COLOURS,
    DASHES,
    FAINT,
    INK,
    SIZE_INCHES,
    in_style,
)
from tianji_cli.plotting.figures import (
    Axes,
    Figure,
    FixedLocator,
    FuncFormatter,
    LogLocator,
    NullLocator,
)
from tianji_cli.render.bench.bench_tables import size_text

MARKERS = "osD^vPX*<>"
PANEL_INCHES = SIZE_INCHES[0] * 0.72
LEAST_SPAN = 20.0
"""Of an axis of rates, or differences of some per cent would fill it."""


def transport_figure(comparison: TransportComparison) -> Figure:
    """A panel for each place and number of senders: few and many."""
    panels = _panels(comparison.rows)
    order = [m for m in dict.fromkeys(r.method for r in comparison.rows) if m not in (OWN, LIMIT)]
    with in_style():
        width = PANEL_INCHES * max(2, len(panels))
        figure = Figure(figsize=(width, SIZE_INCHES[1] * 1.35), layout="constrained")
        shown = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        for axes, rows in zip(shown, panels, strict=True):
            _draw(axes, rows, order, comparison)
        shown[0].set_ylabel("MB/s into the receiver's memory")
        handles = {}
        for axes in shown:
            handles.update(dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True)))
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4)
        return figure


def _panels(rows: Sequence[TransportRow]) -> list[list[TransportRow]]:
    """Rows with the fewest and with the most senders, of each place; the limit is in all."""
    panels = []
    for place in dict.fromkeys(row.place for row in rows):
        here = [row for row in rows if row.place == place]
        numbers = sorted({row.senders for row in here})
        limit = [row for row in here if row.method == LIMIT]
        for senders in dict.fromkeys((numbers[0], numbers[-1])):
            mine = [row for row in here if row.senders == senders and row.method != LIMIT]
            panels.append([*limit, *mine])
    return panels


def _draw(
    axes: Axes, rows: Sequence[TransportRow], order: Sequence[str], comparison: TransportComparison
) -> None:
    senders = rows[-1].senders
    for row in rows:
        if not row.rates:
            continue
        sizes = [rate.size_bytes for rate in row.rates]
        rates = [rate.bytes_per_s.estimate / 1e6 for rate in row.rates]
        axes.plot(sizes, rates, label=row.title, **_look(row, order))
        for rate in row.rates if row.method == OWN else ():
            points = [value / 1e6 for value in rate.values]
            axes.plot([rate.size_bytes] * len(points), points, ".", color=BLUE, alpha=0.5)
    axes.set_title(f"{rows[-1].place}, {senders} sender{'s' if senders > 1 else ''}")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(FixedLocator(comparison.sizes_bytes))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: size_text(int(value))))
    lowest, highest = axes.get_ylim()
    axes.set_ylim(min(lowest, highest / LEAST_SPAN))
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("size of a message")


def _look(row: TransportRow, order: Sequence[str]) -> dict[str, Any]:
    """TianJi is thick and blue, what bounds it black; the others differ in three ways."""
    if row.method == OWN:
        return {"color": BLUE, "linewidth": 2.6, "marker": "o", "zorder": 5}
    if row.method == LIMIT or (row.place != "one host" and row.method == WIRE):
        return {"color": INK, "linewidth": 1.6, "linestyle": (0, (6, 3)), "zorder": 4}
    number = order.index(row.method)
    others = (*COLOURS[1:6], FAINT)
    return {
        "color": others[number % len(others)],
        "linestyle": DASHES[number % len(DASHES)],
        "linewidth": 1.2,
        "marker": MARKERS[1 + number % (len(MARKERS) - 1)],
        "markersize": 4,
    }
