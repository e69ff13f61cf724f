"""The tables of a benchmark of transport for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from tianji_cli import units
from tianji_cli.bench.transport.compare import Latency, Rate, TransportComparison, TransportRow

SMALL_BYTES = 4096


def transport_tables(comparison: TransportComparison) -> list[Table]:
    """For each place, one of rates and one of latencies."""
    tables = []
    for place in dict.fromkeys(row.place for row in comparison.rows):
        rows = [row for row in comparison.rows if row.place == place]
        tables.append(_rates(comparison, rows))
        if any(row.latencies for row in rows):
            tables.append(_latencies(rows))
    return tables


def _rates(comparison: TransportComparison, rows: Sequence[TransportRow]) -> Table:
    place = rows[0].place
    blocks = units.plural(comparison.num_blocks, "block")
    table = _table(f"{comparison.suite}, {place}, MB/s (share of the limit) · {blocks}")
    table.add_column("method", no_wrap=True)
    table.add_column("senders", justify="right")
    for size in comparison.sizes_bytes:
        table.add_column(size_text(size), justify="right", no_wrap=True)
    last = rows[0].senders
    for row in rows:
        if row.senders != last:
            table.add_section()
            last = row.senders
        by_size = {rate.size_bytes: rate for rate in row.rates}
        cells = [rate_text(by_size.get(size)) for size in comparison.sizes_bytes]
        table.add_row(Text(row.title), f"{row.senders}", *(Text(cell) for cell in cells))
    limit = (
        "both copies by two spinning processes through one mapping"
        if place == "one host"
        else "iperf3 with as many streams"
    )
    table.caption = Text(
        "interquartile means; every message is written anew by its sender, and ends in the"
        f" receiver's own memory; limit: {limit}, paired by block; below 4 KiB also messages/s"
    )
    return table


def _latencies(rows: Sequence[TransportRow]) -> Table:
    is_here = rows[0].place == "one host"
    kind = "one way" if is_here else "from asking over TCP"
    table = _table(f"latency of single messages, {kind}, µs: median / 95 % / 99 %")
    table.add_column("method", no_wrap=True)
    sizes = sorted({late.size_bytes for row in rows for late in row.latencies})
    for size in sizes:
        table.add_column(size_text(size), justify="right", no_wrap=True)
    for row in rows:
        if row.latencies:
            by_size = {late.size_bytes: late for late in row.latencies}
            table.add_row(Text(row.title), *(Text(latency_text(by_size.get(s))) for s in sizes))
    return table


def _table(title: str) -> Table:
    table = Table(title=Text(title), title_justify="left", box=None, pad_edge=False)
    table.header_style = "bold"
    table.caption_justify = "left"
    return table


def size_text(size_bytes: int) -> str:
    """
    >>> size_text(1024), size_text(65536), size_text(67108864)
    ('1 KB', '64 KB', '64 MB')
    """
    for unit, size in (("MB", 2**20), ("KB", 2**10)):
        if size_bytes >= size:
            return f"{size_bytes / size:g} {unit}"
    return f"{size_bytes} B"


def rate_text(rate: Rate | None) -> str:
    """`8,120 (81%)`; of small messages also how many."""
    if rate is None:
        return units.NONE
    text = f"{units.number(rate.bytes_per_s.estimate / 1e6, 0)}"
    if rate.of_limit is not None:
        text += f" ({rate.of_limit.estimate:.0%})"
    if rate.size_bytes < SMALL_BYTES:
        text += f" {rate.messages_per_s / 1e3:,.0f} k/s"
    return text


def latency_text(late: Latency | None) -> str:
    """
    >>> latency_text(Latency(size_bytes=8, p50_s=1e-5, p95_s=2e-5, p99_s=3.4e-5, count=9))
    '10 / 20 / 34'
    """
    if late is None:
        return units.NONE
    return " / ".join(f"{value * 1e6:,.0f}" for value in (late.p50_s, late.p95_s, late.p99_s))
