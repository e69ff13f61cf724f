"""`tianji bench scaling`: the same work on more and more nodes."""

from __future__ import annotations

import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

import msgspec

from tianji_cli.bench.cell_files import write_report, write_result
from tianji_cli.bench.conditions import (
    check_host_versions,
    check_own_versions,
    code_state,
    own_versions,
)
from tianji_cli.bench.machine import this_machine
from tianji_cli.bench.undertaking import Undertaking, check_finished
from tianji_cli.commands.bench_request import BenchRequest, Kind, conduct
from tianji_cli.inventory import load_inventory
from tianji_cli.masking import filled
from tianji_cli.output import Output
from tianji_cli.render import units
from tianji_cli.scaling.compare import ScalingComparison, compare
from tianji_cli.scaling.records import (
    ScalingCell,
    ScalingManifest,
    ScalingPaths,
    ScalingResult,
    is_scaling,
    make_cells,
    read_manifest,
    read_results,
)
from tianji_cli.scaling.run_cell import run_cell
from tianji_cli.scaling.suite import (
    check_hosts,
    find_inventory,
    is_scaling_suite,
    load_scaling_suite,
)

LAUNCH_S = 15.0
"""Planned for launch and end of a run, beside its training."""
SHOW_EVERY_S = 20.0
ScalingWork: TypeAlias = Undertaking[ScalingPaths, ScalingManifest, ScalingCell]


def wants_scaling(request: BenchRequest) -> bool:
    """Whether what is to be run, or to go on, is a benchmark of scaling."""
    return request.wants(is_scaling, is_scaling_suite)


def scaling_command(request: BenchRequest, output: Output) -> int:
    """Plans, asks, runs, reports.

    Returns:
        0; 8 with `--strict` and a run that failed or missed the threshold; 130 if interrupted.

    Raises:
        TianJiError: Nothing could be started; says why.
    """
    request.refuse(
        {
            "--compare": "scaling compares numbers of nodes, not systems",
            "--task": "a scaling suite has one task",
            "--skip-missing": "scaling needs no other system",
        }
    )
    kind = Kind(is_scaling, _planned, _read, _checked, _announce, _run, _report)
    return conduct(kind, request, output)


def _report(work: ScalingWork, output: Output) -> bool:
    comparison = report_scaling(work.paths.root, None, output)
    return all(row.num_reached == len(work.manifest.seeds) for row in comparison.rows)


def report_scaling(root: Path, out: Path | None, output: Output) -> ScalingComparison:
    """Rebuilds tables and plot from files, and prints them.

    Args:
        root: The benchmark.
        out: Where plot and `comparison.json` go, with all that is needed to make them again, which
            are small files; None: into the benchmark.

    Raises:
        ConfigError: Nothing to report, or a damaged file.
        PreflightError: The directory cannot be written.
    """
    from tianji_cli.render.figures_scaling import scaling_figure
    from tianji_cli.render.scaling import scaling_table

    paths = ScalingPaths(root.resolve())
    manifest = read_manifest(paths)
    results = read_results(paths, manifest)
    check_finished(results, root)
    comparison = compare(manifest, results)
    figure = scaling_figure(comparison)
    png = write_report(paths, out, manifest, results.values(), comparison, figure)
    output.findings(comparison, [scaling_table(comparison)], comparison.notes, f"plot: {png}")
    return comparison


def _checked(work: ScalingWork) -> ScalingWork:
    manifest, root = work.manifest, str(work.paths.root)
    check_own_versions(manifest.versions, root)
    inventory = filled(
        manifest.inventory, "restore that file; only a new benchmark can use another"
    )
    return replace(work, manifest=msgspec.structs.replace(manifest, inventory=inventory))


def _planned(request: BenchRequest, output: Output) -> ScalingWork:
    suite = load_scaling_suite(request.suite, request.settings)
    budget_s = request.checked_budget_s()
    if budget_s is not None:
        suite = msgspec.structs.replace(suite, budget_s=budget_s)
    inventory = load_inventory(find_inventory(request.inventory))
    check_hosts(suite, inventory)
    bench_id = request.new_id("bench", suite.name)
    seeds = list(range(request.seeds or suite.seeds))
    manifest = ScalingManifest(
        bench_id=bench_id,
        argv=["tianji", *sys.argv[1:]],
        suite=suite,
        inventory=inventory,
        seeds=seeds,
        cells=make_cells(suite, seeds),
        machine=this_machine(),
        versions=own_versions(),
        git=code_state(),
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    paths = ScalingPaths((request.results / bench_id).resolve())
    return Undertaking(paths, manifest, manifest.cells)


def _read(root: Path) -> ScalingWork:
    paths = ScalingPaths(root.resolve())
    manifest = read_manifest(paths)
    done = read_results(paths, manifest)
    return Undertaking(paths, manifest, [cell for cell in manifest.cells if cell not in done])


def _announce(work: ScalingWork, output: Output) -> None:
    manifest, suite = work.manifest, work.manifest.suite
    output.say(f"{manifest.bench_id}: {suite.summary}")
    nodes = ", ".join(map(str, suite.nodes))
    blocks = units.plural(len(manifest.seeds), "seed")
    output.say(f"{nodes} nodes of {manifest.inventory.source}; {blocks}, each in random order")
    longest_s = len(work.open_cells) * (suite.budget_s + LAUNCH_S)
    output.say(
        f"{units.plural(len(work.open_cells), 'run')}, up to {units.seconds(longest_s)} in all"
    )
    for cell in work.open_cells:
        output.say(f"  {cell.name}", at_verbosity=1)


def _run(work: ScalingWork, output: Output) -> None:
    manifest, paths = work.manifest, work.paths
    versions = [done.versions for done in read_results(paths, manifest).values()]
    for number, cell in enumerate(work.open_cells, start=work.num_done + 1):
        shown_s = 0.0

        def show(since_s: float, name: str = cell.name) -> None:
            nonlocal shown_s
            if since_s - shown_s >= SHOW_EVERY_S:
                shown_s = since_s
                output.say(f"  {name}: {units.seconds(since_s)} since launch")

        result = run_cell(manifest, paths, cell, show)
        check_host_versions(versions, result.versions, str(paths.cell(cell)))
        versions.append(result.versions)
        write_result(paths, result)
        output.say(f"{number}/{len(manifest.cells)} {_line(result)}")


def _line(result: ScalingResult) -> str:
    figures = result.figures
    if result.outcome == "failed":
        return f"{result.cell.name}: failed, {result.detail.partition(chr(10))[0]}"
    return (
        f"{result.cell.name}: {result.outcome},"
        f" {units.rate(figures.collect_per_s)},"
        f" threshold after {units.seconds(figures.time_to_threshold_s)}"
    )
