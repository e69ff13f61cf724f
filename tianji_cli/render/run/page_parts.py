"""What the page about runs shows, as text and rows; the template makes HTML of it."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from engine.trace.summary import Summary
from tianji_cli import units
from tianji_cli.analysis.old_samples.lag_bound import largest_bound
from tianji_cli.analysis.run import ManifestView
from tianji_cli.analysis.settings import (
    differing_settings,
    groups_note,
    settings_columns,
    settings_note,
)
from tianji_cli.analysis.verify import ExaminedRun
from tianji_cli.render.run.profile import profile_cells
from tianji_cli.render.run.rows import mean_at_end, remark_of_end, rows_side_by_side
from tianji_cli.render.templating import link

MAX_EVENTS = 200
MAX_FILES = 60
MAX_SEEN = 20_000
MAX_DEPTH = 4


HOST_HEADINGS = (
    *("host", "hostname", "os", "cpu", "cores", "memory", "gpus", "python"),
    "clock offset (s)",
)


def tiles(examined: ExaminedRun) -> list[tuple[str, str, str]]:
    """The four figures that a reader looks for first: name, figure, note."""
    summary = examined.summary
    bound = largest_bound(examined.run)
    moves = "at most " if examined.run.manifest.is_lag_adaptive else ""
    return [
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
            f"min / mean / p95 / max, bound {moves}{units.NONE if bound is None else bound}",
        ),
    ]


def _return_tile(summary: Summary) -> tuple[str, str, str]:
    whose = f"of {summary.return_of}, " if summary.return_of else "of "
    note, remark = f"{whose}the last episodes", remark_of_end(summary.return_mean, summary)
    text = mean_at_end(summary.return_mean, summary)
    return "Mean return", text, f"{note}, {remark or 'at the end'}"


def _threshold_tile(summary: Summary) -> tuple[str, str, str]:
    if summary.threshold is None:
        return "Time to threshold", units.NONE, "the run had no threshold"
    time = units.seconds(summary.time_to_threshold_s) if summary.reached else "not reached"
    return "Time to threshold", time, f"to a mean return of {units.short(summary.threshold)}"


def warnings(runs: Sequence[ExaminedRun]) -> list[str]:
    """Notes that a reader needs to judge the figures; none for clean runs."""
    return [
        (f"{examined.label}: " if len(runs) > 1 else "") + warning
        for examined in runs
        for warning in examined.warnings
    ]


def settings(runs: Sequence[ExaminedRun]) -> dict[str, object]:
    """Settings that differ between the experiments of several runs."""
    differences = differing_settings([examined.run.manifest for examined in runs])
    labels = [examined.label for examined in runs]
    headings, rows = settings_columns(differences, labels)
    notes = (settings_note(differences), groups_note(differences, labels))
    return {"headings": headings, "rows": rows, "notes": [note for note in notes if note]}


def summary_rows(runs: Sequence[ExaminedRun]) -> list[list[str]]:
    """All figures of all runs, one column per run."""
    return [
        [same[0].label, *(row.remarked_text for row in same), same[0].note]
        for same in rows_side_by_side([examined.summary for examined in runs])
    ]


def profiles(runs: Sequence[ExaminedRun]) -> list[tuple[object, ...]]:
    """Where the time of each role went, for the runs that were profiled: label, headings, rows."""
    return [
        (examined.label, *profile_cells(examined.curves.profile))
        for examined in runs
        if examined.curves.profile
    ]


def check(examined: ExaminedRun) -> dict[str, object]:
    """Whether the counters agree with the traces."""
    return {
        "label": examined.label,
        "checked": f"{units.plural(examined.num_fields_checked, 'summary field')} and "
        f"{units.plural(examined.num_ledger_rows_checked, 'ledger row')} checked",
        "wrong": [
            (item.where, item.name, item.written, item.rebuilt) for item in examined.disagreements
        ],
    }


def provenance(examined: ExaminedRun, base: Path) -> dict[str, object]:
    """Where a run came from: command, code, machines, seeds, raw files.

    Args:
        examined: The run.
        base: The page's directory; links are relative to it.
    """
    manifest, events = examined.run.manifest, examined.run.events
    experiment = manifest.section("experiment")
    return {
        "label": examined.label,
        "facts": _facts(manifest),
        "host_headings": HOST_HEADINGS,
        "hosts": _hosts(manifest),
        "versions": list(manifest.section("versions").items()),
        "experiment": json.dumps(experiment, indent=2, ensure_ascii=False),
        "num_events": units.count(len(events)),
        "events": [
            (f"{e.t_s:,.2f}", e.kind, e.role, e.host, e.detail) for e in events[-MAX_EVENTS:]
        ],
        "files": _files(examined.run.paths.root, base),
    }


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


def _hosts(manifest: ManifestView) -> list[tuple[object, ...]]:
    """In the columns of `HOST_HEADINGS`."""
    offsets = manifest.section("clock_offsets_s")
    rows: list[tuple[object, ...]] = []
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
    return rows


def _files(root: Path, base: Path) -> list[tuple[Path, str, str]]:
    """Name, link and size of each."""
    made_here = (root / "report.html", root / "plots")
    files = [
        path
        for path in sorted(_files_below(root))
        if path not in made_here and path.parent not in made_here
    ][:MAX_FILES]
    return [
        (path.relative_to(root), link(path, base), units.size(path.stat().st_size))
        for path in files
    ]


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
