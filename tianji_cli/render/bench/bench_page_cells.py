"""Every cell of a benchmark: what became of it, and its files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tianji_cli import units
from tianji_cli.bench.comparison.compare import OBSERVED
from tianji_cli.bench.comparison.results import BenchFiles, Cell, CellResult
from tianji_cli.render.templating import link


def cells(
    results: Mapping[Cell, CellResult], places: Mapping[Cell, BenchFiles], base: Path
) -> list[dict[str, object]]:
    """All cells, in the order in which the page shows them.

    Args:
        results: Of the finished cells.
        places: The benchmark of each.
        base: The page's directory; links are relative to it.
    """
    return [
        _cell(cell, results[cell], places[cell], base)
        for cell in sorted(results, key=lambda c: (c.task, c.seed, c.peer))
    ]


def _cell(cell: Cell, result: CellResult, paths: BenchFiles, base: Path) -> dict[str, object]:
    figures, root = result.figures, paths.files(cell)
    tables = (("episodes", "episodes"), ("production", "steps"))
    files = [(root.result, "result"), (root.output, "output")]
    files += [
        (root.trace / f"{table}.jsonl{packed}", name)
        for table, name in tables
        for packed in ("", ".gz")
    ]
    cause, _, last_words = result.detail.partition("\n")
    return {
        "name": cell.name,
        "outcome": result.outcome,
        "is_observed": result.outcome in OBSERVED,
        "cause": cause,
        "last_words": last_words,
        "figures": (
            units.number(figures.collect_per_s, 0),
            units.seconds(figures.time_to_threshold_s),
            units.count(figures.env_steps),
            _left_behind(result),
        ),
        "files": [(name, link(path, base)) for path, name in files if path.is_file()],
    }


def _left_behind(result: CellResult) -> str:
    """Processes, and what shared memory was left when they had ended."""
    left = [
        f"{item.name} ({units.size(item.rss_bytes)}"
        + (f", {', '.join(item.listening)}" if item.listening else "")
        + ")"
        for item in result.leftovers
    ]
    if files := result.left_files:
        size = units.size(sum(file.size_bytes for file in files))
        left.append(f"{units.plural(len(files), 'file')} of shared memory ({size})")
    return "; ".join(left) or "nothing"
