"""What every run must be able to show afterwards, whatever befell it; asked after fault tests."""

from __future__ import annotations

from pathlib import Path

from tianji_cli.analysis.history import check_history
from tianji_cli.analysis.old_samples.lag_history import check_moving_bound
from tianji_cli.analysis.run import load_run
from tianji_cli.storage.run_dir import RunPaths


def check_histories(results: Path) -> int:
    """Checks the traces of all runs in a directory of results.

    Returns:
        How many runs had any rows, and so could be checked.
    """
    num_checked = 0
    for trace in sorted(results.glob("*/trace")):
        paths = RunPaths(trace.parent)
        has_rows = any(table.stat().st_size for table in trace.glob("*.jsonl"))
        if not has_rows or not paths.manifest.is_file():
            continue  # it ended before it began
        run = load_run(paths)
        found = [*check_history(run), *check_moving_bound(run)]
        assert not found, f"{paths.run_id}: {len(found)} rules are broken: {found[:5]}"
        num_checked += 1
    return num_checked
