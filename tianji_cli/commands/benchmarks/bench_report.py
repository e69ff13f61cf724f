"""The report of a benchmark, at its end and later: tables, plots, one page, from files alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from engine.errors import ConfigError
from tianji_cli.bench.campaign import check_finished
from tianji_cli.bench.comparison.compare import Comparison, TaskComparison, compare
from tianji_cli.bench.comparison.curves import TaskCurves, load_curves
from tianji_cli.bench.comparison.measure import Figures, measure
from tianji_cli.bench.comparison.results import (
    BenchFiles,
    BenchManifest,
    Cell,
    CellResult,
    read_rows,
)
from tianji_cli.bench.compatibility import code_name, version_changes
from tianji_cli.commands.benchmarks.conduct import ANOTHER_PLACE
from tianji_cli.output import Output
from tianji_cli.render.bench.bench_tables import task_table
from tianji_cli.storage.comparison_dir import claim_out
from tianji_cli.storage.json_files import write_json, writing
from tianji_cli.storage.run_dir import from_here
from tianji_cli.storage.safe_files import make_inside, write_file

if TYPE_CHECKING:
    from tianji_cli.render.templating import PageFigure

TOLERANCE = 1e-6


@dataclass(frozen=True)
class BenchReport:
    """A written report.

    Attributes:
        comparison: Every figure.
        page: Path of the page.
    """

    comparison: Comparison
    page: Path


@dataclass(frozen=True)
class _Loaded:
    manifest: BenchManifest
    results: dict[Cell, CellResult]
    places: dict[Cell, BenchFiles]


def write_bench_report(roots: Sequence[Path], out: Path | None) -> BenchReport:
    """Rebuilds everything from the raw traces and writes page, plots and `comparison.json`.

    Args:
        roots: Benchmarks; several are merged if suite and machine are the same.
        out: Directory of the report; None: the first benchmark's.

    Raises:
        ConfigError: Nothing to report, a damaged file, benchmarks that must not be merged, or
            another report at `out`.
        PreflightError: The directory cannot be written.
    """
    from tianji_cli.render.bench.bench_page import BenchPage, render_bench_page

    loaded = _load(roots)
    results, rebuilt = _rebuild(loaded)
    curves = {
        name: load_curves(name, task, loaded.places, results)
        for name, task in loaded.manifest.suite.tasks.items()
    }
    comparison = compare(loaded.manifest, results, [root.name for root in roots], curves)
    target = BenchFiles((out or roots[0]).resolve())
    with writing("the report", target.root, ANOTHER_PLACE):
        if out is not None:
            claim_out(out, roots)
        make_inside(target.root, target.plots)
        figures = {
            task.task: _draw(task, curves[task.task], target.plots) for task in comparison.tasks
        }
        write_json(target.comparison, comparison)
        page = BenchPage(loaded.manifest, comparison, results, loaded.places, figures, rebuilt)
        write_file(target.report, render_bench_page(page, target.root))
    return BenchReport(comparison, target.report)


def write_archive(roots: Sequence[Path], out: Path | None) -> BenchReport:
    """Archives a benchmark in another directory and writes its report there; see `bench.archive`.

    Raises:
        ConfigError: Several benchmarks, no directory, or one that is in use.
        PreflightError: It cannot be written.
    """
    from tianji_cli.bench.comparison.results import archive

    if len(roots) != 1 or out is None:
        raise ConfigError(
            "archiving needs one benchmark and one directory",
            where="--archive",
            fix="tianji report BENCH --archive --out DIR",
        )
    with writing("the archive", out, ANOTHER_PLACE):
        archive(roots[0], out)
    return write_bench_report([out], None)


def show_comparison(report: BenchReport, output: Output) -> None:
    """Prints the tables, or one JSON document."""
    found = report.comparison
    tables = (part for task in found.tasks for part in (task_table(found, task), ""))
    output.findings(found, tables, found.warnings, f"report: {from_here(report.page)}")


def _load(roots: Sequence[Path]) -> _Loaded:
    """Reads and, where allowed, merges benchmarks.

    Seeds of later ones are renumbered, so that their blocks stay separate.
    """
    manifests = [BenchFiles(root).read_manifest() for root in roots]
    first = manifests[0]
    for root, manifest in zip(roots, manifests, strict=True):
        _check_mergeable(first, manifest, root)
    results: dict[Cell, CellResult] = {}
    places: dict[Cell, BenchFiles] = {}
    for root, manifest in zip(roots, manifests, strict=True):
        paths = BenchFiles(root.resolve())
        for cell, result in paths.read_results(manifest).items():
            if cell in results:
                raise ConfigError(
                    f"cell {cell.name} is in several of these benchmarks",
                    where=str(root),
                    fix="merge benchmarks with different seeds, or report them one by one",
                )
            results[cell], places[cell] = result, paths
    check_finished(results, roots[0])
    seeds = sorted({seed for manifest in manifests for seed in manifest.seeds})
    cells = [cell for manifest in manifests for cell in manifest.cells]
    return _Loaded(msgspec.structs.replace(first, seeds=seeds, cells=cells), results, places)


def _check_mergeable(first: BenchManifest, other: BenchManifest, root: Path) -> None:
    if other.machine.id != first.machine.id:
        raise ConfigError(
            f"it was run on machine {other.machine.id} ({other.machine.hostname}),"
            f" {first.bench_id} on {first.machine.id}",
            where=str(root),
            fix="times of different machines cannot be compared; report each on its own",
        )
    if other.suite.tasks != first.suite.tasks:
        raise ConfigError(
            f"its suite differs from that of {first.bench_id}",
            where=str(root),
            fix="only the same work can be compared; report each on its own",
        )
    names = {*first.systems, *other.systems}
    changes = version_changes(_versions(first, names), _versions(other, names))
    if first.git.commit != other.git.commit:
        changes.append(f"TianJi was {code_name(first.git)}, is {code_name(other.git)}")
    if changes:
        raise ConfigError(
            f"its systems differ from those of {first.bench_id}: {'; '.join(changes)}",
            where=str(root),
            fix="only the same systems can be compared; report each on its own",
        )


def _versions(manifest: BenchManifest, names: Iterable[str]) -> dict[str, dict[str, str]]:
    """Versions by system; empty for a missing one."""
    systems = {name: manifest.systems.get(name) for name in names}
    return {name: system.versions if system else {} for name, system in systems.items()}


def _rebuild(loaded: _Loaded) -> tuple[dict[Cell, CellResult], tuple[int, list[str]]]:
    """Recomputes all figures from the trace tables; written ones are only compared with them."""
    results, wrong = {}, []
    for cell, result in loaded.results.items():
        trace = loaded.places[cell].files(cell).trace
        task = loaded.manifest.suite.tasks[cell.task].of(cell.system)
        if not trace.is_dir():
            results[cell] = result
            continue
        figures = measure(read_rows(trace), task, result.stop_asked_s)
        if not _agree(figures, result.figures):
            wrong.append(cell.name)
        results[cell] = msgspec.structs.replace(result, figures=figures)
    return results, (len(results) - len(wrong), wrong)


def _agree(one: Figures, other: Figures) -> bool:
    for name in one.__struct_fields__:
        a, b = getattr(one, name), getattr(other, name)
        if (a is None) != (b is None):
            return False
        if a is not None and abs(a - b) > TOLERANCE * max(1.0, abs(b)):
            return False
    return True


def _draw(task: TaskComparison, curves: TaskCurves, plots: Path) -> list[PageFigure]:
    from tianji_cli.plotting.figure_style import save
    from tianji_cli.render.bench.figures_bench import BENCH_FIGURES, make_bench_figure
    from tianji_cli.render.templating import PageFigure

    drawn = []
    for spec in BENCH_FIGURES:
        figure = make_bench_figure(spec, curves, task)
        if figure is None:
            continue
        png, svg = save(figure, plots, f"{task.task}-{spec.name}")
        text = svg.read_text(encoding="utf-8")
        title = spec.title(curves, task)
        drawn.append(PageFigure(name=spec.name, title=title, svg=text, png=png))
    return drawn
