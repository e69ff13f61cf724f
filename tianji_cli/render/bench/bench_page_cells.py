"""Every cell of a benchmark: what became of it, and its files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tianji_cli import units
from tianji_cli.bench.comparison.results import BenchFiles, Cell, CellResult
from tianji_cli.render.run.page_parts import esc, link


def cells_section(
    results: Mapping[Cell, CellResult], places: Mapping[Cell, BenchFiles], base: Path
) -> str:
    """The table of all cells.

    Args:
        results: Of the finished cells.
        places: The benchmark of each.
        base: The page's directory; links are relative to it.
    """
    head_cells = "".join(
        f'<th scope="col">{name}</th>'
        for name in (
            "cell",
            "outcome",
            "env steps/s",
            "to threshold",
            "env steps",
            "left behind",
            "raw",
        )
    )
    rows = "".join(
        _cell(cell, results[cell], places[cell], base)
        for cell in sorted(results, key=lambda c: (c.task, c.seed, c.peer))
    )
    return (
        '<section><h2>Every cell</h2><div class="card"><div class="scroll" role="region"'
        ' tabindex="0" aria-label="Every cell"><table><thead><tr>'
        f"{head_cells}</tr></thead><tbody>{rows}</tbody></table></div></div></section>"
    )


def _cell(cell: Cell, result: CellResult, paths: BenchFiles, base: Path) -> str:
    figures, root = result.figures, paths.files(cell)
    tables = (("episodes", "episodes"), ("production", "steps"))
    files = [(root.result, "result"), (root.output, "output")]
    files += [
        (root.trace / f"{table}.jsonl{packed}", name)
        for table, name in tables
        for packed in ("", ".gz")
    ]
    links = " · ".join(
        f'<a href="{link(path, base)}">{name}</a>' for path, name in files if path.is_file()
    )
    return (
        f'<tr><th scope="row">{esc(cell.name)}</th><td>{_outcome(result)}</td>'
        f"<td>{units.number(figures.collect_per_s, 0)}</td>"
        f"<td>{units.seconds(figures.time_to_threshold_s)}</td>"
        f"<td>{units.count(figures.env_steps)}</td><td>{esc(_left_behind(result))}</td>"
        f"<td>{links}</td></tr>"
    )


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


def _outcome(result: CellResult) -> str:
    """One word; for what went wrong also the cause, and behind it the system's last words."""
    if result.outcome in ("reached", "censored"):
        return esc(result.outcome)
    cause, _, words = result.detail.partition("\n")
    said = f'<strong class="bad">{esc(result.outcome)}</strong>: {esc(cause)}'
    if not words:
        return said
    return f"{said}<details><summary>its last words</summary><pre>{esc(words)}</pre></details>"
