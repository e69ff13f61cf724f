"""The page of a benchmark: no script, nothing from the network, readable in ten years."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tianji_cli import units
from tianji_cli.bench.comparison.compare import Comparison, TaskComparison
from tianji_cli.bench.comparison.results import BenchFiles, BenchManifest, Cell, CellResult
from tianji_cli.render.bench.bench_page_cells import cells_section
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
from tianji_cli.render.run.page import PageFigure, head
from tianji_cli.render.run.page_parts import esc, link, table
from tianji_cli.render.svg import inline_svg

_SIGNS = {
    "equal": "=\N{NO-BREAK SPACE}equal",
    "different": "≠\N{NO-BREAK SPACE}different",
    "not settable": "✗\N{NO-BREAK SPACE}not\N{NO-BREAK SPACE}settable",
}


@dataclass(frozen=True)
class BenchPage:
    """What a page is made of.

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
    comparison = page.comparison
    title = f"{comparison.suite}: {', '.join(TITLES[name] for name in page.manifest.peers)}"
    sections = "".join(_task(page, task, base) for task in comparison.tasks)
    return "".join(
        [
            head(f"{title} · TianJi bench"),
            _header(page, title),
            "<main>",
            _warnings(comparison.warnings),
            sections,
            cells_section(page.results, page.places, base),
            _caveats(page),
            _paper(),
            _provenance(page, base),
            "</main><footer>Written by <code>tianji report</code> from the files of the benchmark"
            " alone. Intervals are 95% intervals.</footer></body></html>\n",
        ]
    )


def _header(page: BenchPage, title: str) -> str:
    machine = page.manifest.machine
    cores = units.plural(machine.num_cores, "core")
    place = f"{machine.cpu_model}, {cores}, {units.size(machine.memory_bytes)}"
    blocks = units.plural(page.comparison.num_blocks, "block")
    words = f"{page.manifest.suite.summary} · {blocks} · {place}"
    return f'<header><h1>{esc(title)}</h1><p class="soft">{esc(words)}</p></header>'


def _warnings(lines: Sequence[str]) -> str:
    if not lines:
        return ""
    items = "".join(f"<li>{esc(line)}</li>" for line in lines)
    return f'<div class="warnings" role="note"><strong>Please note</strong><ul>{items}</ul></div>'


def _task(page: BenchPage, task: TaskComparison, base: Path) -> str:
    lines = "".join(f"<li>{esc(line)}</li>" for line in verdicts(task))
    said = (
        f'<div class="card"><strong>TianJi against each peer</strong><ul>{lines}</ul></div>'
        if lines
        else ""
    )
    figures = "".join(_figure(task.task, figure, base) for figure in page.figures[task.task])
    return (
        f"<section><h2>Task {esc(task.task)}</h2>{said}"
        f'<div class="card">{_summary(page, task)}</div>'
        f'<div class="figures below">{figures}</div>{_parity(page, task.task)}</section>'
    )


def _summary(page: BenchPage, task: TaskComparison) -> str:
    rows = [
        (
            TITLES[peer.peer],
            interval_text(peer.throughput, 0),
            units.number(peer.throughput_median, 0),
            success_text(peer),
            return_text(peer.final_return, page.manifest.suite.tasks[task.task].threshold),
            return_text(peer.mean_return, page.manifest.suite.tasks[task.task].threshold),
            median_text(peer),
            _tight(units.seconds(peer.restricted_mean_s)),
            _tight(units.seconds(peer.median_from_launch_s)),
            units.number(peer.median_steps, 0),
            _tight(units.seconds(peer.launch_s)),
            "–" if peer.peak_rss_bytes is None else _tight(units.size(peer.peak_rss_bytes)),
            f"{units.plural(peer.num_leftovers, 'process')},"
            f" {units.plural(peer.num_open_ports, 'port')}",
            failures_text(peer),
        )
        for peer in task.peers
    ]
    headings = (
        "system",
        "env steps/s (IQM)",
        "median",
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
    return table(headings, rows, label=f"Summary of task {task.task}")


def _tight(text: str) -> str:
    """A number stays with its unit."""
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def _figure(task: str, figure: PageFigure, base: Path) -> str:
    png, svg = link(figure.png, base), link(figure.png.with_suffix(".svg"), base)
    drawing = inline_svg(figure.svg, prefix=f"{task}-{figure.name}", label=figure.title)
    name = esc(figure.name.replace("_", " "))
    return (
        f'<figure><div class="paper">{drawing}</div><figcaption>{name}: '
        f'<a href="{png}">PNG</a> · <a href="{svg}">SVG</a></figcaption></figure>'
    )


def _parity(page: BenchPage, task: str) -> str:
    """One row per setting, one column per system."""
    by_peer = page.manifest.parity[task]
    columns = list(by_peer)
    settings: dict[str, str] = {}
    cells: dict[tuple[str, str], str] = {}
    for peer, rows in by_peer.items():
        for row in rows:
            settings.setdefault(row.setting, row.wanted)
            note = f": {row.note}" if row.note else ""
            cells[row.setting, peer] = f"{_SIGNS[row.match]}{note}"
    body = [
        (name, wanted, *(cells.get((name, peer), units.NONE) for peer in columns))
        for name, wanted in settings.items()
    ]
    headings = ("setting", "the task", *(TITLES[peer] for peer in columns))
    inside = table(headings, body, label=f"Parity of settings in task {task}")
    return (
        "<details open><summary>Parity: is it the same work?</summary>"
        f'<p class="soft">The task\'s value, and whether each system does the same.</p>{inside}'
        f"{_unable(page.manifest.unable.get(task, {}))}"
        "</details>"
    )


def _unable(reasons: Mapping[str, str]) -> str:
    if not reasons:
        return ""
    items = "".join(f"<li>{esc(reason)}</li>" for reason in reasons.values())
    return f"<p>Without a part in this task:</p><ul>{items}</ul>"


def _caveats(page: BenchPage) -> str:
    items = "".join(f"<li>{esc(line)}</li>" for line in (*COUNTING, *page.manifest.caveats))
    return f'<section><h2>How to read this</h2><div class="card"><ul>{items}</ul></div></section>'


def _paper() -> str:
    inside = table(
        ("claim", "paper, other hardware", "source"), PAPER, label="What the paper claims"
    )
    return (
        '<section><h2>Paper, other hardware</h2><div class="card"><p class="soft">Reference'
        " values from the publication; nothing here was measured on this machine.</p>"
        f"{inside}</div></section>"
    )


def _provenance(page: BenchPage, base: Path) -> str:
    manifest, (num_rebuilt, wrong) = page.manifest, page.rebuilt
    machine = manifest.machine
    versions = "; ".join(
        f"{TITLES[name]}: " + ", ".join(f"{k} {v}" for k, v in found.versions.items())
        for name, found in manifest.peers.items()
        if found is not None
    )
    dirty = " with uncommitted changes" if manifest.git.dirty else ""
    check = (
        f"{units.plural(num_rebuilt, 'cell')} agree"
        if not wrong
        else f"{units.plural(num_rebuilt, 'cell')} agree, these do not: {', '.join(wrong)}"
    )
    facts = [
        ("Command", shlex.join(manifest.argv)),
        ("Started at (UTC)", manifest.started_at),
        ("Git commit", f"{manifest.git.commit or 'unknown'}{dirty}"),
        ("Machine", " · ".join(filter(None, (machine.id, machine.hostname, machine.os)))),
        ("CPU governor", machine.cpu_governor or units.NONE),
        ("Versions", versions),
        ("Figures rebuilt from the raw traces", check),
        ("Order of the cells", ", ".join(cell.name for cell in manifest.cells)),
    ]
    suite = json.dumps(msgspec.to_builtins(manifest.suite), indent=2)
    names = sorted({paths.root for paths in page.places.values()})
    files = " · ".join(
        f'<a href="{link(root / name, base)}">{esc(root.name)}/{name}</a>'
        for root in names
        for name in ("bench.json", "comparison.json")
        if (root / name).is_file()
    )
    inside = table(("fact", "value"), facts, label="Provenance")
    return (
        f'<section><h2>Provenance</h2><div class="card">{inside}<p>{files}</p></div>'
        f"<details><summary>Resolved suite</summary><pre>{esc(suite)}</pre></details></section>"
    )
