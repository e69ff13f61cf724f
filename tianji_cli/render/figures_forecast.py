"""The figure of a simulated run: env steps per second, and what is busy, over hosts."""

from __future__ import annotations

from collections.abc import Sequence

from tianji_cli import units
from tianji_cli.plotting.figure_style import (
    BLUE,
    FAINT,
    INK,
    SIZE_INCHES,
    colour_of,
    dashes_of,
    in_style,
)
from tianji_cli.plotting.figures import Axes, Figure, FixedLocator, FuncFormatter, NullLocator
from tianji_cli.simulation.forecast import Forecast, SizeForecast

IDEAL = (0, (6, 3))
MOST_LABELS = 10
SHOWN = 0.02
"""A resource that is never busier than this is left out."""


def forecast_figure(forecast: Forecast) -> Figure:
    """Two panels with one axis of hosts."""
    known = [size for size in forecast.sizes if size.collect_per_s]
    with in_style():
        figure = Figure(figsize=(SIZE_INCHES[0] * 1.5, SIZE_INCHES[1]), layout="constrained")
        left, right = figure.subplots(1, 2)
        _draw_rate(left, forecast, known)
        _draw_loads(right, known)
        for axes in (left, right):
            _label_hosts(axes, [size.hosts for size in known])
        caption = f"policy {forecast.policy}, simulated from run {forecast.run_id}"
        figure.supxlabel(caption, fontsize=8.5, color=FAINT)
        return figure


def _draw_rate(axes: Axes, forecast: Forecast, known: Sequence[SizeForecast]) -> None:
    hosts = [size.hosts for size in known]
    rates = [size.collect_per_s or 0.0 for size in known]
    axes.plot(hosts, rates, "o-", color=BLUE, ms=4, label="simulated")
    ideal = [rates[0] * n / hosts[0] for n in hosts]
    label = f"{units.plural(hosts[0], 'host')} × number of hosts"
    axes.plot(hosts, ideal, color=INK, linestyle=IDEAL, linewidth=1.1, label=label)
    if forecast.pays_up_to is not None:
        label = f"pays up to {units.plural(forecast.pays_up_to, 'host')}"
        axes.axvline(forecast.pays_up_to, color=FAINT, linewidth=1.0, linestyle=":", label=label)
    axes.set_yscale("log")
    axes.set_ylabel("env steps/s")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_title(
        f"{units.plural(hosts[-1], 'host')}: {rates[-1] / rates[0]:,.1f} times {hosts[0]}"
    )
    axes.legend(loc="best")


def _draw_loads(axes: Axes, known: Sequence[SizeForecast]) -> None:
    hosts = [size.hosts for size in known]
    shares = [size.collecting_share or 0.0 for size in known]
    axes.plot(hosts, shares, "s-", color=BLUE, ms=4, label="actors, collecting")
    kinds = dict.fromkeys(load.kind for size in known for load in size.loads)
    number = 0
    for kind in kinds:
        busy = [max([o.share for o in size.loads if o.kind == kind], default=0.0) for size in known]
        if kind == "actors" or max(busy) < SHOWN:
            continue
        number += 1
        capped = [min(share, 1.0) for share in busy]
        colour, dashes = colour_of(number), dashes_of(number)
        axes.plot(hosts, capped, label=f"{kind}, the busiest", color=colour, linestyle=dashes)
    axes.set_ylim(0, 1.05)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
    axes.set_ylabel("of the time")
    axes.set_title(f"What limits it: {known[-1].limit}")
    axes.legend(loc="best")


def _label_hosts(axes: Axes, hosts: Sequence[int]) -> None:
    axes.set_xscale("log", base=2)
    step = -(-len(hosts) // MOST_LABELS)
    axes.xaxis.set_major_locator(FixedLocator(list(hosts[::step])))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel("hosts")
