"""The tables of all kinds of benchmarks for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from tianji_cli import units
from tianji_cli.bench.comparison.compare import Comparison, Ratio, TaskComparison
from tianji_cli.bench.scaling.compare import ScalingComparison, ScalingRow
from tianji_cli.bench.statistics import Interval
from tianji_cli.bench.transport.compare import Latency, Rate, TransportComparison, TransportRow
from tianji_cli.render.bench.bench_text import (
    TITLES,
    equal_steps_lines,
    failures_text,
    median_text,
    reached_text,
    return_lines,
)

_STYLES = {"faster": "green", "slower": "red"}


def task_table(comparison: Comparison, task: TaskComparison) -> Table:
    """One task: a row per system, the ratios of TianJi against it in the last columns."""
    title = f"{comparison.suite} · {task.task} · {units.plural(comparison.num_blocks, 'block')}"
    table = _table(title)
    table.add_column("system", no_wrap=True)
    of_agents = [summary.agent_steps for summary in task.systems if summary.agent_steps]
    headings = ("agent steps/s",) * bool(of_agents)
    for heading in ("env steps/s", *headings, "reached", "median", "× throughput", "× time"):
        table.add_column(heading, justify="right", no_wrap=True)
    for summary in task.systems:
        table.add_row(
            Text(TITLES[summary.system], style="bold"),
            _estimate(summary.throughput),
            *((_estimate(summary.agent_steps),) if of_agents else ()),
            reached_text(summary),
            median_text(summary),
            _ratio(summary.throughput_ratio),
            _ratio(summary.time_ratio),
        )
    table.caption = Text(
        "steps/s: IQM; median: from the first sample to the threshold; ×: TianJi is so many"
        " times as fast as the system of that row, by block, with its 95% interval"
    )
    for words in (*equal_steps_lines(task), *return_lines(task)):
        table.caption.append(f"\n· {words}")
    failed = [
        f"{TITLES[summary.system]} {failures_text(summary)}"
        for summary in task.systems
        if failures_text(summary) != "none"
    ]
    if failed:
        table.caption.append(f"\nfailed: {'; '.join(failed)}", style="red")
    return table


def _estimate(value: Interval | None) -> str:
    return units.number(None if value is None else value.estimate, 0)


def _ratio(ratio: Ratio | None) -> Text:
    if ratio is None:
        return Text(units.NONE)
    if ratio.value is None:
        return Text("censored" if "half" in ratio.reason else units.NONE)
    if ratio.answer == "no difference shown":
        return Text("no difference")
    estimate = units.number(ratio.value.estimate, 2)
    if ratio.value.low is None or ratio.value.high is None:
        return Text(f"{estimate} (n=1)")
    low, high = units.number(ratio.value.low, 2), units.number(ratio.value.high, 2)
    return Text(f"{estimate} [{low}–{high}]", style=_STYLES.get(ratio.answer, ""))


def scaling_table(comparison: ScalingComparison) -> Table:
    """One row for each number of nodes."""
    title = f"{comparison.suite} · {units.plural(comparison.num_seeds, 'seed')}"
    table = _table(title)
    headings = ("nodes", "steps/s", "×", "eff.", "reached", "median", "× sooner", "cores")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in comparison.rows:
        table.add_row(*(Text(text) for text in _cells(row)))
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
        speedup_text(row.speedup),
        units.NONE if row.efficiency is None else f"{row.efficiency:.0%}",
        f"{row.num_reached}/{row.num_observed + row.num_failed}",
        units.seconds(row.median_time_s),
        speedup_text(row.time_ratio),
        units.number(row.used_cores, 2),
    )


def speedup_text(value: Interval | None) -> str:
    """
    >>> speedup_text(Interval(estimate=7.91, low=7.82, high=7.97)), speedup_text(None)
    ('7.91 [7.8–8.0]', '–')
    """
    if value is None:
        return units.NONE
    if value.low is None or value.high is None:
        return f"{value.estimate:.2f}"
    return f"{value.estimate:.2f} [{value.low:.1f}–{value.high:.1f}]"


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
