"""The parts of the page. Every text from a file passes through `esc` on its way in."""

from __future__ import annotations

import html
import json
import os
import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from engine.trace.summary import Summary
from tianji_cli import units
from tianji_cli.analysis.run import ManifestView
from tianji_cli.analysis.settings import differing_settings, setting_cells, settings_note
from tianji_cli.analysis.verify import ExaminedRun
from tianji_cli.render.run.profile import profile_cells
from tianji_cli.render.run.rows import mean_at_end, remark_of_end, rows_side_by_side

MAX_EVENTS = 200
MAX_FILES = 60
MAX_SEEN = 20_000
MAX_DEPTH = 4


def esc(value: object) -> str:
    """Text that cannot become markup, in elements and in quoted attributes."""
    return html.escape(str(value), quote=True)


def table(headings: Sequence[str], rows: Iterable[Sequence[object]], *, label: str) -> str:
    """A table in a scrolling region; the first cell of each row heads it.

    Args:
        headings: Of the columns.
        rows: Cells as text, not yet escaped.
        label: What a screen reader calls it.
    """
    head = "".join(f'<th scope="col">{esc(heading)}</th>' for heading in headings)
    body = "".join(
        f'<tr><th scope="row">{esc(row[0])}</th>'
        + "".join(f"<td>{esc(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{esc(label)}">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def tiles(examined: ExaminedRun) -> str:
    """The four figures that a reader looks for first."""
    summary = examined.summary
    bound = examined.run.manifest.max_lag
    items = (
        _threshold_tile(summary),
        _return_tile(summary),
        (
            "Collected",
            units.rate(summary.collect_per_s),
            f"P/C {units.number(summary.balance, 2)}, steady window",
        ),
        (
            "Lag",
            units.lag(summary.lag),
            f"min / mean / p95 / max, bound {units.NONE if bound is None else bound}",
        ),
    )
    inside = "".join(
        f'<div class="tile"><dt>{esc(name)}</dt><dd>{esc(text)}</dd><dd>{esc(note)}</dd></div>'
        for name, text, note in items
    )
    return f'<dl class="tiles">{inside}</dl>'


def _return_tile(summary: Summary) -> tuple[str, str, str]:
    note, remark = "of the last episodes", remark_of_end(summary.return_mean, summary)
    text = mean_at_end(summary.return_mean, summary)
    return "Mean return", text, f"{note}, {remark or 'at the end'}"


def _threshold_tile(summary: Summary) -> tuple[str, str, str]:
    if summary.threshold is None:
        return "Time to threshold", units.NONE, "the run had no threshold"
    time = units.seconds(summary.time_to_threshold_s) if summary.reached else "not reached"
    return "Time to threshold", time, f"to a mean return of {units.short(summary.threshold)}"


def warnings(runs: Sequence[ExaminedRun]) -> str:
    """What to know before trusting the figures; nothing for clean runs."""
    lines = [
        (f"{examined.label}: " if len(runs) > 1 else "") + warning
        for examined in runs
        for warning in examined.warnings
    ]
    if not lines:
        return ""
    items = "".join(f"<li>{esc(line)}</li>" for line in lines)
    return f'<div class="warnings" role="note"><strong>Please note</strong><ul>{items}</ul></div>'


def settings_section(runs: Sequence[ExaminedRun]) -> str:
    """What the experiments of several runs say differently; nothing for a single run."""
    if len(runs) == 1:
        return ""
    differences = differing_settings([examined.run.manifest for examined in runs])
    rows = [(item.setting, *setting_cells(item)) for item in differences.settings]
    headings = ("setting", *(examined.label for examined in runs))
    inside = table(headings, rows, label="Settings that differ") if rows else ""
    note = settings_note(differences)
    said = f'<p class="soft">{esc(note)}</p>' if note else ""
    return f'<section><h2>Settings that differ</h2><div class="card">{inside}{said}</div></section>'


def summary_section(runs: Sequence[ExaminedRun]) -> str:
    """All figures of all runs, one column per run."""
    rows = [
        [same[0].label, *(row.remarked_text for row in same), same[0].note]
        for same in rows_side_by_side([examined.summary for examined in runs])
    ]
    headings = ["figure", *(examined.label for examined in runs), "meaning"]
    inside = table(headings, rows, label="Summary of every run")
    return f'<section><h2>Summary</h2><div class="card">{inside}</div></section>'


def profile_section(runs: Sequence[ExaminedRun]) -> str:
    """Where the time of each role went, for the runs that were profiled."""
    parts = []
    for examined in runs:
        if not examined.curves.profile:
            continue
        heading = f"<h3>{esc(examined.label)}</h3>" if len(runs) > 1 else ""
        headings, rows = profile_cells(examined.curves.profile)
        cells = table(headings, rows, label=f"Profile of {examined.label}")
        parts.append(f'{heading}<div class="card">{cells}</div>')
    if not parts:
        return ""
    note = (
        '<p class="soft">Shares of wall time. Busy: in a section where the role itself works; '
        "processor: what it really computed. Where busy is far above it, the role waited for a "
        "core, or its environment for something outside.</p>"
    )
    return f"<section><h2>Where the time went</h2>{''.join(parts)}{note}</section>"


def check_section(runs: Sequence[ExaminedRun]) -> str:
    """Whether the counters agree with the traces."""
    parts = ["<section><h2>Check: figures rebuilt from the raw traces</h2>"]
    for examined in runs:
        name = f"<strong>{esc(examined.label)}</strong> – " if len(runs) > 1 else ""
        checked = (
            f"{units.plural(examined.num_fields_checked, 'summary field')} and "
            f"{units.plural(examined.num_ledger_rows_checked, 'ledger row')} checked"
        )
        wrong = examined.disagreements
        verdict = (
            f'<span class="bad">✗ disagreements: {len(wrong)}</span>'
            if wrong
            else '<span class="good">✓ rebuilt from traces: agrees</span>'
        )
        parts.append(f'<div class="card">{name}{verdict} <span class="soft">({checked})</span>')
        if wrong:
            rows = [(item.where, item.name, item.written, item.rebuilt) for item in wrong]
            headings = ("file", "figure or rule", "written", "rebuilt")
            parts.append(table(headings, rows, label="Disagreements"))
        parts.append("</div>")
    return "".join([*parts, "</section>"])


def provenance_section(runs: Sequence[ExaminedRun], base: Path) -> str:
    """Where each run came from: command, code, machines, seeds, raw files.

    Args:
        runs: The runs.
        base: The page's directory; links are relative to it.
    """
    return "".join(
        [
            "<section><h2>Provenance</h2>",
            *(_provenance(examined, base, is_only=len(runs) == 1) for examined in runs),
            "</section>",
        ]
    )


def _provenance(examined: ExaminedRun, base: Path, *, is_only: bool) -> str:
    manifest = examined.run.manifest
    heading = "" if is_only else f"<h3>{esc(examined.label)}</h3>"
    facts = table(("fact", "value"), _facts(manifest), label="How the run was started")
    return (
        f'{heading}<div class="card">{facts}</div>'
        + _details("Hosts", _hosts(manifest))
        + _details("Versions", _pairs(manifest.section("versions"), "package", "version"))
        + _details("Resolved experiment", _json(manifest.section("experiment")))
        + _details(f"Events ({len(examined.run.events):,})", _events(examined))
        + _details("Raw files", _files(examined.run.paths.root, base))
    )


def _facts(manifest: ManifestView) -> list[tuple[str, str]]:
    argv = manifest.data.get("argv")
    command = shlex.join(map(str, argv)) if isinstance(argv, list) else ""
    git = manifest.section("git")
    dirty = " with uncommitted changes" if git.get("dirty") is True else ""
    seeds = manifest.data.get("seeds")
    facts = [
        ("Command", command),
        ("Started at (UTC)", manifest.text("started_at")),
        ("Git commit", f"{git.get('commit') or 'unknown'}{dirty}"),
        ("Seeds", ", ".join(map(str, seeds)) if isinstance(seeds, list) else ""),
        ("TianJi", manifest.text("versions", "tianji")),
        ("Python", manifest.text("versions", "python")),
    ]
    return [(name, text or units.NONE) for name, text in facts]


def _hosts(manifest: ManifestView) -> str:
    offsets = manifest.section("clock_offsets_s")
    rows = []
    for name in manifest.section("hosts"):
        host = manifest.section("hosts", name)
        memory, gpus = host.get("memory_bytes"), host.get("gpus")
        python = manifest.text("hosts", name, "versions", "python")
        rows.append(
            (
                name,
                host.get("hostname", units.NONE),
                host.get("os", units.NONE),
                host.get("cpu_model", units.NONE),
                host.get("num_cores", units.NONE),
                units.size(memory) if isinstance(memory, int | float) else units.NONE,
                ", ".join(map(str, gpus)) if isinstance(gpus, list) and gpus else "none",
                python or units.NONE,
                offsets.get(name, units.NONE),
            )
        )
    columns = ("host", "hostname", "os", "cpu", "cores", "memory", "gpus", "python")
    return table((*columns, "clock offset (s)"), rows, label="Hosts")


def _pairs(mapping: dict[str, object], key: str, value: str) -> str:
    return table((key, value), list(mapping.items()), label=f"{key} and {value}")


def _json(data: object) -> str:
    return f"<pre>{esc(json.dumps(data, indent=2, ensure_ascii=False))}</pre>"


def _events(examined: ExaminedRun) -> str:
    events = examined.run.events[-MAX_EVENTS:]
    rows = [(f"{e.t_s:,.2f}", e.kind, e.role, e.host, e.detail) for e in events]
    return table(("time (s)", "kind", "role", "host", "detail"), rows, label="Last events")


def _files(root: Path, base: Path) -> str:
    made_here = (root / "report.html", root / "plots")
    files = [
        path
        for path in sorted(_files_below(root))
        if path not in made_here and path.parent not in made_here
    ][:MAX_FILES]
    items = "".join(
        f'<li><a href="{link(path, base)}">{esc(path.relative_to(root))}</a> '
        f'<span class="soft">{units.size(path.stat().st_size)}</span></li>'
        for path in files
    )
    return f'<ul class="files">{items}</ul>'


def _files_below(root: Path) -> Iterator[Path]:
    """Regular files, no deeper than any of a run, and not more than a page can name."""
    places = [(root, 1)]
    num_seen = 0
    while places:
        place, depth = places.pop()
        with suppress(OSError), os.scandir(place) as entries:
            for entry in entries:
                num_seen += 1
                if num_seen > MAX_SEEN:
                    return
                if entry.is_dir(follow_symlinks=False) and depth < MAX_DEPTH:
                    places.append((Path(entry.path), depth + 1))
                elif entry.is_file(follow_symlinks=False):
                    yield Path(entry.path)


def link(path: Path, base: Path) -> str:
    """A relative link, ready for an attribute."""
    return esc(quote(os.fsencode(Path(os.path.relpath(path, base)).as_posix())))


def _details(title: str, inside: str) -> str:
    return f"<details><summary>{esc(title)}</summary>{inside}</details>"
