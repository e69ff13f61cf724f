"""The tables of a benchmark for the terminal."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from tianji_cli.bench.compare import Comparison, Ratio, TaskComparison
from tianji_cli.render import units
from tianji_cli.render.bench_text import (
    TITLES,
    failures_text,
    interval_text,
    median_text,
    success_text,
)

_STYLES = {"faster": "green", "slower": "red"}


def task_table(comparison: Comparison, task: TaskComparison) -> Table:
    """One task: a row per system, the ratios of TianJi against it in the last columns."""
    title = f"{comparison.suite} · {task.task} · {comparison.num_blocks} blocks"
    table = Table(title=Text(title), title_justify="left", box=None, pad_edge=False)
    table.header_style = "bold"
    table.add_column("system", no_wrap=True)
    for heading in ("env steps/s", "reached", "median", "TianJi's throughput", "TianJi's time"):
        table.add_column(heading, justify="right")
    table.add_column("failed")
    for peer in task.peers:
        table.add_row(
            Text(TITLES[peer.peer], style="bold"),
            interval_text(peer.throughput, 0),
            success_text(peer),
            median_text(peer),
            _ratio(peer.throughput_ratio),
            _ratio(peer.time_ratio),
            Text(failures_text(peer), style="" if failures_text(peer) == "none" else "red"),
        )
    table.caption_justify = "left"
    table.caption = Text(
        "env steps/s: IQM with 95% interval; median: seconds from the first sample; x: times as"
        " fast as the system of that row, by block"
    )
    return table


def _ratio(ratio: Ratio | None) -> Text:
    if ratio is None:
        return Text(units.NONE)
    if ratio.value is None:
        return Text("none: over half censored" if "half" in ratio.reason else "none")
    if ratio.answer == "no difference shown":
        return Text("no difference shown")
    estimate = f"{units.number(ratio.value.estimate, 2)} x"
    if ratio.value.low is None or ratio.value.high is None:
        return Text(f"{estimate} (1 block)")
    low, high = units.number(ratio.value.low, 2), units.number(ratio.value.high, 2)
    return Text(f"{estimate} [{low}, {high}]", style=_STYLES.get(ratio.answer, ""))
