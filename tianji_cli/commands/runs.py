"""`tianji runs`: past runs, studies and benchmarks, from their own files alone."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import msgspec

from engine.wording import plural
from tianji_cli.analysis.run_filter import RunFilter, select_runs
from tianji_cli.analysis.runs import RunRow, list_runs
from tianji_cli.bench.listing import list_results
from tianji_cli.output import Output
from tianji_cli.render.run.tables import runs_table

RUNS_SCHEMA_VERSION = 1
EVERYTHING = RunFilter()

__all__ = ["RunRow", "RunsDocument", "list_runs", "runs_command"]


class RunsDocument(msgspec.Struct, frozen=True, kw_only=True):
    """What `runs --json` prints."""

    schema_version: int = RUNS_SCHEMA_VERSION
    runs: list[RunRow]


def runs_command(results: Path, output: Output, wanted: RunFilter = EVERYTHING) -> None:
    """Prints the contents of a results directory as a table or as one JSON document.

    Args:
        results: The results directory.
        output: The command's output.
        wanted: Which rows, and in which order.

    Raises:
        ConfigError: No such status, kind, key or time; or the directory cannot be read.
    """
    found = list_results(results)
    rows = select_runs(found, wanted, datetime.now(UTC))
    if output.is_json:
        output.document(RunsDocument(runs=rows))
    elif rows:
        output.data.print(runs_table(rows))
        for row in rows:
            if row.status == "detached":
                output.say(f"{row.run_id}: {row.problem}")
    elif found:
        output.say(f"{results}: none of {plural(len(found), 'row')} fits (tianji runs lists all)")
    else:
        output.say(f"{results}: no run here yet (tianji up starts one)")
