"""The table of a simulated run."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from tianji_cli import units
from tianji_cli.simulation.forecast import Forecast, SizeForecast


def forecast_table(forecast: Forecast) -> Table:
    """One row for each number of hosts."""
    title = f"policy {forecast.policy}, simulated from run {forecast.run_id}"
    summary = forecast.cluster.summary
    table = Table(
        title=Text(f"{title} · {summary}" if summary else title),
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    for heading in ("hosts", "actors", "groups", "steps/s", "×", "lag", "collecting"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("limit", no_wrap=True)
    first = next((size for size in forecast.sizes if size.collect_per_s), None)
    for size in forecast.sizes:
        table.add_row(*(Text(text) for text in _cells(size, first)))
    return table


def _cells(size: SizeForecast, first: SizeForecast | None) -> tuple[str, ...]:
    if size.problem:
        return (f"{size.hosts}", *[units.NONE] * 6, "cannot be run")
    rate, base = size.collect_per_s, first.collect_per_s if first else None
    return (
        f"{size.hosts}",
        units.count(size.actors),
        units.count(size.groups),
        units.number(rate, 0),
        f"{rate / base:.2f}" if rate and base else units.NONE,
        _lag(size),
        units.NONE if size.collecting_share is None else f"{size.collecting_share:.0%}",
        size.limit or units.NONE,
    )


def _lag(size: SizeForecast) -> str:
    if size.lag_mean is None or size.lag_max is None:
        return units.NONE
    return f"{size.lag_mean:.1f} ≤{size.lag_max}"


def words_of_forecast(forecast: Forecast) -> list[str]:
    """What follows the table."""
    known = [size.hosts for size in forecast.sizes if size.collect_per_s]
    lines = [f"{units.plural(size.hosts, 'host')}: {_words_of(size)}" for size in _turns(forecast)]
    if forecast.pays_up_to is not None:
        lines.append(
            f"beyond {units.plural(forecast.pays_up_to, 'host')}, adding more stops paying: twice"
            " as many give less than 1.4 times the env steps"
        )
    elif len(known) > 1:
        lines.append(f"up to {units.plural(known[-1], 'host')}, more hosts pay")
    lines += [f"assumed: {words}" for words in forecast.assumptions]
    lines.append(
        "steps/s: env steps collected by all actors; lag: mean and highest, in versions;"
        " collecting: of the time of all actors"
    )
    lines.append(f"simulated in {units.seconds(forecast.wall_s)}; nothing was started")
    return lines


def _words_of(size: SizeForecast) -> str:
    return f"cannot be run: {size.problem}" if size.problem else size.limit_words


def _turns(forecast: Forecast) -> list[SizeForecast]:
    """The first of the sizes that the same limits."""
    kinds = [(size.limit, size.problem) for size in forecast.sizes]
    before = [None, *kinds]
    return [s for s, kind, last in zip(forecast.sizes, kinds, before, strict=False) if kind != last]
