"""Tables for the terminal. Text from files is never read as rich markup."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from engine.trace.summary import Summary
from tianji_cli import units
from tianji_cli.analysis.runs import RunRow
from tianji_cli.analysis.settings import (
    Differences,
    groups_note,
    settings_columns,
    settings_note,
)
from tianji_cli.render.run.rows import summary_rows

FELL = "*"
_STATUS_STYLE = {"ok": "green", "failed": "red", "unreadable": "red"}


def summary_table(summary: Summary) -> Table:
    """One run's summary with human units; `up` ends with it and `report` shows it."""
    table = Table(title=Text(summary.run_id), title_justify="left", box=None, pad_edge=False)
    table.add_column("", style="bold", no_wrap=True)
    table.add_column("", justify="right", overflow="fold")
    table.add_column("", style="dim")
    for row in summary_rows(summary):
        is_status = row.label == "Status"
        style = _STATUS_STYLE.get(summary.status, "yellow") if is_status else ""
        table.add_row(Text(row.label), Text(row.text, style=style), Text(row.explanation))
    if summary.error:
        # The rest, a traceback or the end of a log, is in summary.json and on the page.
        first_line = summary.error.partition("\n")[0]
        table.caption, table.caption_justify = Text(first_line, style="red"), "left"
    table.show_header = False
    return table


def settings_table(differences: Differences, runs: Sequence[str]) -> Table:
    """The settings that differ between the runs of a comparison; see `settings_columns`."""
    table = Table(title=Text("settings that differ"), title_justify="left", box=None)
    table.pad_edge, table.header_style = False, "bold"
    headings, rows = settings_columns(differences, runs)
    for heading in headings:
        table.add_column(Text(heading), overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    notes = (settings_note(differences), groups_note(differences, runs))
    table.caption, table.caption_justify = Text("\n".join(filter(None, notes))), "left"
    return table


def runs_table(rows: Sequence[RunRow]) -> Table:
    """Past runs, studies and benchmarks, in the order given."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("run", no_wrap=True)
    table.add_column("status", no_wrap=True)
    table.add_column("work", overflow="fold")
    for heading in ("steps/s", "return", "reached"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            Text(row.run_id),
            Text(row.status, style=_STATUS_STYLE.get(row.status, "yellow")),
            Text(_work(row)),
            units.number(row.collect_per_s, 0),
            Text(units.mean_return(row.return_mean, row.threshold) + (FELL if _fell(row) else "")),
            _reached_in(row),
        )
    if any(map(_fell, rows)):
        words = f"{FELL} below the threshold at the end, which was reached before or in evaluations"
        table.caption, table.caption_justify = Text(words), "left"
    return table


def _work(row: RunRow) -> str:
    """What a run trained; of a study or benchmark what it is, when it began and how far it is."""
    if row.kind == "run":
        return " ".join(part for part in (row.algorithm, row.env_id) if part) or row.problem or ""
    if row.num_cells is None:
        return f"{row.kind}: {row.problem}"
    began = f"{row.started_at[:16].replace('T', ' ')}, " if row.started_at else ""
    cells = f"{units.count(row.num_cells_finished)} of {units.plural(row.num_cells, 'cell')}"
    return f"{row.kind}, {began}{cells}"


def _fell(row: RunRow) -> bool:
    if not row.reached or row.return_mean is None or row.threshold is None:
        return False
    return row.return_mean < row.threshold


def _reached_in(row: RunRow) -> str:
    if row.threshold is None or row.reached is None:
        return units.NONE
    return units.seconds(row.time_to_threshold_s) if row.reached else "no"
