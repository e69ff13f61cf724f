"""The page of a benchmark: one file without scripts that loads nothing from the network."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tianji_cli import units
from tianji_cli.bench.comparison.compare import OBSERVED, Comparison, TaskComparison
from tianji_cli.bench.comparison.results import BenchFiles, BenchManifest, Cell, CellResult
from tianji_cli.bench.systems.base import ParityRow
from tianji_cli.render.bench.bench_text import (
    COUNTING,
    PAPER,
    TITLES,
    failures_text,
    interval_text,
    median_text,
    return_text,
    success_text,
    verdicts,
)
from tianji_cli.render.templating import PageFigure, link, render

_SIGNS = {
    "equal": "=\N{NO-BREAK SPACE}equal",
    "different": "≠\N{NO-BREAK SPACE}different",
    "not settable": "✗\N{NO-BREAK SPACE}not\N{NO-BREAK SPACE}settable",
}


@dataclass(frozen=True)
class BenchPage:
    """Content of a page.

    Attributes:
        manifest: Of the (first) benchmark.
        comparison: Every figure.
        results: All finished cells.
        places: The benchmark of each cell.
        figures: By task.
        rebuilt: How many cells agree with their traces, and the names of those that do not.
    """

    manifest: BenchManifest
    comparison: Comparison
    results: Mapping[Cell, CellResult]
    places: Mapping[Cell, BenchFiles]
    figures: Mapping[str, Sequence[PageFigure]]
    rebuilt: tuple[int, Sequence[str]]


def render_bench_page(page: BenchPage, base: Path) -> str:
    """The whole page.

    Args:
        page: What it shows.
        base: The directory that it will lie in; links are relative to it.

    Returns:
        HTML. The same files give the same text.
    """
    comparison, manifest = page.comparison, page.manifest
    title = f"{comparison.suite}: {', '.join(TITLES[name] for name in manifest.systems)}"
    return render(
        "bench.html",
        title=f"{title} · TianJi bench",
        heading=title,
        soft=_soft(page),
        comparison=comparison,
        tasks=[_task(page, task, base) for task in comparison.tasks],
        cells=_cells(page.results, page.places, base),
        caveats=[*COUNTING, *manifest.caveats],
        paper=PAPER,
        facts=_facts(page),
        files=_files(page, base),
        suite=json.dumps(msgspec.to_builtins(manifest.suite), indent=2),
    )


def _soft(page: BenchPage) -> str:
    machine = page.manifest.machine
    cores = units.plural(machine.num_cores, "core")
    place = f"{machine.cpu_model}, {cores}, {units.size(machine.memory_bytes)}"
    blocks = units.plural(page.comparison.num_blocks, "block")
    return f"{page.manifest.suite.summary} · {blocks} · {place}"


def _task(page: BenchPage, task: TaskComparison, base: Path) -> dict[str, object]:
    figures = [
        figure.drawn(
            base, prefix=f"{task.task}-{figure.name}", caption=figure.name.replace("_", " ")
        )
        for figure in page.figures[task.task]
    ]
    by_system = page.manifest.parity[task.task]
    return {
        "name": task.task,
        "verdicts": verdicts(task),
        "headings": _headings(task),
        "summary": _summary(page, task),
        "figures": figures,
        "parity_headings": ["setting", "the task", *(TITLES[system] for system in by_system)],
        "parity": _parity(by_system),
        "unable": list(page.manifest.unable.get(task.task, {}).values()),
    }


def _headings(task: TaskComparison) -> tuple[str, ...]:
    return (
        "system",
        "env steps/s (IQM)",
        "median",
        *(("agent steps/s (IQM)",) * _has_agents(task)),
        *(("trained env steps/s (IQM)",) * _is_at_equal_steps(task)),
        "reached (Wilson)",
        "final return",
        "return over env steps",
        "median time to threshold",
        f"restricted mean ({task.horizon_s:.0f} s)",
        "from launch",
        "env steps",
        "launch",
        "peak memory",
        "left behind",
        "failed",
    )


def _has_agents(task: TaskComparison) -> bool:
    """Whether a task has several agents, whose own steps were counted."""
    return any(summary.agent_steps for summary in task.systems)


def _is_at_equal_steps(task: TaskComparison) -> bool:
    """Whether all cells of a task end after the same number of env steps."""
    return any(summary.trained for summary in task.systems)


def _summary(page: BenchPage, task: TaskComparison) -> list[tuple[str, ...]]:
    """In the columns of `_headings`."""
    return [
        (
            TITLES[summary.system],
            interval_text(summary.throughput, 0),
            units.number(summary.throughput_median, 0),
            *((interval_text(summary.agent_steps, 0),) * _has_agents(task)),
            *((interval_text(summary.trained, 0),) * _is_at_equal_steps(task)),
            success_text(summary),
            return_text(summary.final_return, page.manifest.suite.tasks[task.task].threshold),
            return_text(summary.mean_return, page.manifest.suite.tasks[task.task].threshold),
            median_text(summary),
            _tight(units.seconds(summary.restricted_mean_s)),
            _tight(units.seconds(summary.median_from_launch_s)),
            units.number(summary.median_steps, 0),
            _tight(units.seconds(summary.launch_s)),
            "–" if summary.peak_rss_bytes is None else _tight(units.size(summary.peak_rss_bytes)),
            f"{units.plural(summary.num_leftovers, 'process')},"
            f" {units.plural(summary.num_open_ports, 'port')}",
            failures_text(summary),
        )
        for summary in task.systems
    ]


def _tight(text: str) -> str:
    """A number stays with its unit."""
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def _parity(by_system: Mapping[str, Sequence[ParityRow]]) -> list[tuple[str, ...]]:
    """One row per setting, one column per system."""
    settings: dict[str, str] = {}
    cells: dict[tuple[str, str], str] = {}
    for system, rows in by_system.items():
        for row in rows:
            settings.setdefault(row.setting, row.wanted)
            note = f": {row.note}" if row.note else ""
            cells[row.setting, system] = f"{_SIGNS[row.match]}{note}"
    return [
        (name, wanted, *(cells.get((name, system), units.NONE) for system in by_system))
        for name, wanted in settings.items()
    ]


def _facts(page: BenchPage) -> list[tuple[str, str]]:
    manifest, (num_rebuilt, wrong) = page.manifest, page.rebuilt
    machine = manifest.machine
    versions = "; ".join(
        f"{TITLES[name]}: " + ", ".join(f"{k} {v}" for k, v in found.versions.items())
        for name, found in manifest.systems.items()
        if found is not None
    )
    dirty = " with uncommitted changes" if manifest.git.dirty else ""
    check = (
        f"{units.plural(num_rebuilt, 'cell')} agree"
        if not wrong
        else f"{units.plural(num_rebuilt, 'cell')} agree, these do not: {', '.join(wrong)}"
    )
    return [
        ("Command", shlex.join(manifest.argv)),
        ("Started at (UTC)", manifest.started_at),
        ("Git commit", f"{manifest.git.commit or 'unknown'}{dirty}"),
        ("Machine", " · ".join(filter(None, (machine.id, machine.hostname, machine.os)))),
        ("CPU governor", machine.cpu_governor or units.NONE),
        ("Versions", versions),
        ("Figures rebuilt from the raw traces", check),
        ("Order of the cells", ", ".join(cell.name for cell in manifest.cells)),
    ]


def _files(page: BenchPage, base: Path) -> list[tuple[str, str]]:
    """Name and link of each document."""
    roots = sorted({paths.root for paths in page.places.values()})
    return [
        (f"{root.name}/{name}", link(root / name, base))
        for root in roots
        for name in ("bench.json", "comparison.json")
        if (root / name).is_file()
    ]


def _cells(
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
        for cell in sorted(results, key=lambda c: (c.task, c.seed, c.system))
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
