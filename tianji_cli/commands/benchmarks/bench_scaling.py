"""`tianji bench scaling`: the same work on an increasing number of nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, TypeAlias

import msgspec

from tianji_cli import units
from tianji_cli.bench.campaign import Campaign
from tianji_cli.bench.cells import beginning
from tianji_cli.bench.compatibility import check_host_versions
from tianji_cli.bench.scaling.compare import ScalingComparison, compare
from tianji_cli.bench.scaling.records import (
    ScalingCell,
    ScalingFiles,
    ScalingManifest,
    ScalingResult,
    make_cells,
)
from tianji_cli.bench.scaling.run_cell import run_cell
from tianji_cli.bench.scaling.suite import check_hosts, find_inventory, load_scaling_suite
from tianji_cli.commands.benchmarks.bench_request import BenchRequest
from tianji_cli.commands.benchmarks.conduct import Kind, write_plotted
from tianji_cli.config.inventory import load_inventory
from tianji_cli.output import Output
from tianji_cli.render.bench.bench_live import BenchDisplay
from tianji_cli.storage.masking import filled

LAUNCH_S = 15.0
"""Seconds planned for launch and end of a run, beside its training."""
ScalingCampaign: TypeAlias = Campaign[ScalingFiles, ScalingManifest, ScalingCell]


def report_scaling(root: Path, out: Path | None, output: Output) -> ScalingComparison:
    """Rebuilds tables and plot from files, and prints them; see `write_plotted`."""
    from tianji_cli.render.bench.bench_tables import scaling_table
    from tianji_cli.render.bench.figures_scaling import scaling_figure

    found, png = write_plotted(ScalingFiles(root.resolve()), out, compare, scaling_figure)
    output.findings(found, [scaling_table(found)], found.notes, f"plot: {png}")
    return found


class ScalingKind(Kind[ScalingFiles, ScalingManifest, ScalingCell, ScalingResult]):
    """The same work on an increasing number of nodes."""

    files = ScalingFiles
    unused: ClassVar[Mapping[str, str]] = {
        "--compare": "scaling compares numbers of nodes, not systems",
        "--parallel": "a benchmark of scaling runs one cell at a time, for fair times",
        "--task": "a scaling suite has one task",
        "--skip-missing": "scaling needs no other system",
    }

    def plan(self, request: BenchRequest, output: Output) -> ScalingCampaign:
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
            suite=suite,
            inventory=inventory,
            seeds=seeds,
            cells=make_cells(suite, seeds),
            **beginning(),
        )
        files = ScalingFiles((request.results / bench_id).resolve())
        return Campaign(files, manifest, manifest.cells)

    def renew(self, work: ScalingCampaign) -> ScalingCampaign:
        manifest = work.manifest
        fix = "restore that file; only a new benchmark can use another"
        inventory = filled(manifest.inventory, fix)
        return replace(work, manifest=msgspec.structs.replace(manifest, inventory=inventory))

    def announce(self, work: ScalingCampaign) -> Iterator[str]:
        manifest, suite = work.manifest, work.manifest.suite
        nodes = ", ".join(map(str, suite.nodes))
        blocks = units.plural(len(manifest.seeds), "seed")
        yield f"{nodes} nodes of {manifest.inventory.source}; {blocks}, each in random order"
        longest_s = len(work.open_cells) * (suite.budget_s + LAUNCH_S)
        num_runs = units.plural(len(work.open_cells), "run")
        yield f"{num_runs}, up to {units.seconds(longest_s)} in all"

    def runner(
        self, work: ScalingCampaign, display: BenchDisplay, held: ExitStack
    ) -> Callable[[ScalingCell], ScalingResult]:
        manifest, files = work.manifest, work.files
        versions = [done.versions for done in files.read_results(manifest).values()]

        def run(cell: ScalingCell) -> ScalingResult:
            def show(since_s: float) -> None:
                display.show(f"{cell.name}: {units.seconds(since_s)} since launch")

            result = run_cell(manifest, files, cell, show)
            check_host_versions(versions, result.versions, str(files.cell(cell)))
            versions.append(result.versions)
            return result

        return run

    def line(self, result: ScalingResult) -> str:
        figures = result.figures
        if result.outcome == "failed":
            return f"{result.cell.name}: failed, {result.detail.partition(chr(10))[0]}"
        return (
            f"{result.cell.name}: {result.outcome},"
            f" {units.rate(figures.collect_per_s)},"
            f" threshold after {units.seconds(figures.time_to_threshold_s)}"
        )

    def report(
        self, roots: Sequence[Path], out: Path | None, output: Output, *, archives: bool = False
    ) -> bool:
        comparison = report_scaling(roots[0], out, output)
        return all(row.num_reached == comparison.num_seeds for row in comparison.rows)


KIND = ScalingKind()
