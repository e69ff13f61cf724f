"""The table of a scaling benchmark for the terminal."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from tianji_cli import units
from tianji_cli.bench.scaling.compare import ScalingComparison, ScalingRow
from tianji_cli.bench.statistics import Interval


def scaling_table(comparison: ScalingComparison) -> Table:
    """One row for each number of nodes."""
    title = f"{comparison.suite} · {units.plural(comparison.num_seeds, 'seed')}"
    table = Table(title=Text(title), title_justify="left", box=None, pad_edge=False)
    table.header_style = "bold"
    headings = ("nodes", "steps/s", "×", "eff.", "reached", "median", "× sooner", "cores")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in comparison.rows:
        table.add_row(*(Text(text) for text in _cells(row)))
    table.caption_justify = "left"
    table.caption = Text(
        "steps/s: env steps of all nodes, steady window, IQM; median: time to a mean return of"
        f" {comparison.threshold:g}; ×: against the first row, by seed, with 95% interval; eff.:"
        " efficiency, that over the ratio of nodes; cores: used by the run's processes on all"
        f" hosts together, of {comparison.num_cores}"
    )
    return table


def _cells(row: ScalingRow) -> tuple[str, ...]:
    return (
        f"{row.nodes}",
        units.number(row.throughput.estimate if row.throughput else None, 0),
        ratio_text(row.speedup),
        units.NONE if row.efficiency is None else f"{row.efficiency:.0%}",
        f"{row.num_reached}/{row.num_observed + row.num_failed}",
        units.seconds(row.median_time_s),
        ratio_text(row.time_ratio),
        units.number(row.used_cores, 2),
    )


def ratio_text(value: Interval | None) -> str:
    """
    >>> ratio_text(Interval(estimate=7.91, low=7.82, high=7.97)), ratio_text(None)
    ('7.91 [7.8–8.0]', '–')
    """
    if value is None:
        return units.NONE
    if value.low is None or value.high is None:
        return f"{value.estimate:.2f}"
    return f"{value.estimate:.2f} [{value.low:.1f}–{value.high:.1f}]"
