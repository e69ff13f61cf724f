"""The tables of a benchmark for the terminal."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from tianji_cli import units
from tianji_cli.bench.comparison.compare import Comparison, Ratio, TaskComparison
from tianji_cli.render.bench.bench_text import (
    TITLES,
    failures_text,
    median_text,
    reached_text,
    return_lines,
)

_STYLES = {"faster": "green", "slower": "red"}


def task_table(comparison: Comparison, task: TaskComparison) -> Table:
    """One task: a row per system, the ratios of TianJi against it in the last columns."""
    title = f"{comparison.suite} · {task.task} · {units.plural(comparison.num_blocks, 'block')}"
    table = Table(title=Text(title), title_justify="left", box=None, pad_edge=False)
    table.header_style = "bold"
    table.add_column("system", no_wrap=True)
    for heading in ("env steps/s", "reached", "median", "× throughput", "× time"):
        table.add_column(heading, justify="right", no_wrap=True)
    for summary in task.systems:
        rate = None if summary.throughput is None else summary.throughput.estimate
        table.add_row(
            Text(TITLES[summary.system], style="bold"),
            units.number(rate, 0),
            reached_text(summary),
            median_text(summary),
            _ratio(summary.throughput_ratio),
            _ratio(summary.time_ratio),
        )
    table.caption_justify = "left"
    table.caption = Text(
        "env steps/s: IQM; median: from the first sample to the threshold; ×: TianJi is so many"
        " times as fast as the system of that row, by block, with its 95% interval"
    )
    for words in return_lines(task):
        table.caption.append(f"\n· {words}")
    failed = [
        f"{TITLES[summary.system]} {failures_text(summary)}"
        for summary in task.systems
        if failures_text(summary) != "none"
    ]
    if failed:
        table.caption.append(f"\nfailed: {'; '.join(failed)}", style="red")
    return table


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
