"""`tianji bench transport`: how fast messages get from several processes into the memory of one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, TypeAlias

import msgspec

from engine.errors import ConfigError
from tianji_cli import units
from tianji_cli.bench.campaign import Campaign
from tianji_cli.bench.cells import beginning
from tianji_cli.bench.compatibility import check_host_versions, check_versions
from tianji_cli.bench.scaling.suite import find_inventory
from tianji_cli.bench.systems.base import SystemMissingError, SystemOptions
from tianji_cli.bench.systems.probe import options_of
from tianji_cli.bench.transport.compare import TransportComparison, compare
from tianji_cli.bench.transport.hosts import Hosts
from tianji_cli.bench.transport.methods import METHODS, OWN, Found, Place, find
from tianji_cli.bench.transport.records import (
    TransportCell,
    TransportFiles,
    TransportManifest,
    TransportResult,
    make_cells,
)
from tianji_cli.bench.transport.run_cell import run_cell
from tianji_cli.bench.transport.suite import load_transport_suite
from tianji_cli.commands.benchmarks.bench_request import BenchRequest
from tianji_cli.commands.benchmarks.conduct import Kind, write_plotted
from tianji_cli.config.inventory import Host, load_inventory
from tianji_cli.config.lookup import find_file
from tianji_cli.output import Output
from tianji_cli.render.bench.bench_live import BenchDisplay

LAUNCH_S = 4.5
"""Seconds planned for the start and end of a cell, beside its measurement."""
EFFORT = 2.5
"""Time per size, as a multiple of `measure_s`: verification and warm-up come first."""
TransportCampaign: TypeAlias = Campaign[TransportFiles, TransportManifest, TransportCell]


def report_transport(root: Path, out: Path | None, output: Output) -> TransportComparison:
    """Rebuilds tables and plot from files, and prints them; see `write_plotted`."""
    from tianji_cli.render.bench.bench_tables import transport_tables
    from tianji_cli.render.bench.figures_transport import transport_figure

    found, png = write_plotted(TransportFiles(root.resolve()), out, compare, transport_figure)
    output.findings(found, transport_tables(found), found.notes, f"plot: {png}")
    return found


def _hosts(name: str | None) -> list[Host]:
    """The hosts of the inventory; `lab` is the running lab. Empty without one."""
    if name is None:
        return []
    path = find_inventory(None) if name == "lab" else find_file("inventories", name)
    inventory = load_inventory(path)
    if len(inventory.hosts) < 2:
        raise ConfigError(
            "transport between hosts needs two hosts: the first receives, the others send",
            where=inventory.source,
            fix="tianji lab up --hosts 2",
        )
    return list(inventory.hosts)


def _find(names: list[str], options: SystemOptions) -> tuple[dict[str, Found], dict[str, str]]:
    """What is installed here, and why the rest is not measured."""
    found, missing = {}, {}
    for name in names:
        try:
            found[name] = find(METHODS[name], options)
        except SystemMissingError as error:
            missing[name] = f"{error.what} ({error.fix})" if error.fix else error.what
    return found, missing


def with_methods_of_now(work: TransportCampaign) -> TransportCampaign:
    """The same, with the methods of its open cells as found now.

    Raises:
        SystemMissingError: One is no longer there.
        ConfigError: One has changed since the benchmark was started.
    """
    manifest, wanted = work.manifest, {cell.method for cell in work.open_cells}
    earlier = {name: found for name, found in manifest.found.items() if name in wanted}
    now = {
        name: find(METHODS[name], options_of(found.command[-1])) for name, found in earlier.items()
    }
    check_versions(
        {name: found.versions for name, found in earlier.items()},
        {name: found.versions for name, found in now.items()},
        str(work.files.root),
    )
    changed = msgspec.structs.replace(manifest, found={**manifest.found, **now})
    return replace(work, manifest=changed)


def _lacking(hosts: Hosts | None, manifest: TransportManifest) -> Mapping[str, str]:
    if hosts is None:
        return {}
    reasons = {name: hosts.lacks(METHODS[name]) for name in manifest.found}
    return {name: reason for name, reason in reasons.items() if reason}


class TransportKind(Kind[TransportFiles, TransportManifest, TransportCell, TransportResult]):
    """One method after the other, on one host or between hosts."""

    files = TransportFiles
    unused: ClassVar[Mapping[str, str]] = {
        "--compare": "transport compares methods: choose with -s methods=[tianji,limit]",
        "--task": "transport has no tasks: choose with -s sizes_bytes=[1024]",
        "--budget": "transport has no budget: set measure_s",
        "--parallel": "a benchmark of transport runs one cell at a time, for fair times",
        "--skip-missing": "transport measures what is installed and lists the rest",
    }

    def plan(self, request: BenchRequest, output: Output) -> TransportCampaign:
        suite = load_transport_suite(request.suite, request.settings)
        hosts = _hosts(request.inventory)
        place: Place = "between hosts" if hosts else "one host"
        wanted = [name for name in suite.methods if place in METHODS[name].places]
        found, missing = _find(wanted, request.system_options)
        bench_id = request.new_id("bench", suite.name)
        num_blocks = request.seeds or suite.blocks
        if OWN not in found:
            raise ConfigError(
                "TianJi's own channel is not among the methods", where="methods", fix="add tianji"
            )
        manifest = TransportManifest(
            bench_id=bench_id,
            suite=suite,
            hosts=hosts,
            num_blocks=num_blocks,
            cells=make_cells(suite, place, list(found), num_blocks),
            found=found,
            missing=missing,
            **beginning(),
        )
        files = TransportFiles((request.results / bench_id).resolve())
        return Campaign(files, manifest, manifest.cells)

    def renew(self, work: TransportCampaign) -> TransportCampaign:
        return with_methods_of_now(work)

    def announce(self, work: TransportCampaign) -> Iterator[str]:
        manifest, suite, num_open = work.manifest, work.manifest.suite, len(work.open_cells)
        yield "; ".join(METHODS[name].title for name in manifest.found)  # these contain commas
        yield f"{units.plural(manifest.num_blocks, 'block')}, each in random order"
        for name, reason in manifest.missing.items():
            yield f"  not measured: {METHODS[name].title}: {reason}"
        if manifest.hosts:
            receiver, *senders = (host.name for host in manifest.hosts)
            yield f"from {', '.join(senders)} to {receiver}"
        size_s = EFFORT * suite.measure_s * len(suite.sizes_bytes)
        total = units.seconds(num_open * (LAUNCH_S + size_s))
        yield f"{units.plural(num_open, 'cell')}, about {total} in all"

    def runner(
        self, work: TransportCampaign, display: BenchDisplay, held: ExitStack
    ) -> Callable[[TransportCell], TransportResult | None]:
        manifest, files = work.manifest, work.files
        hosts = None
        if manifest.hosts:
            hosts = held.enter_context(Hosts(manifest.hosts, manifest.bench_id))
            earlier = (done.versions for done in files.read_results(manifest).values())
            check_host_versions(earlier, hosts.versions, str(files.root))
        lacking = _lacking(hosts, manifest)
        for name, reason in lacking.items():
            display.say(f"not measured: {METHODS[name].title}: {reason}")

        def run(cell: TransportCell) -> TransportResult | None:
            if cell.method in lacking:
                return None
            display.show(cell.name)
            if hosts is None:
                return run_cell(manifest, files, cell)
            files.cell(cell).mkdir(parents=True, exist_ok=True)
            return hosts.run_cell(manifest, cell)

        return run

    def line(self, result: TransportResult) -> str:
        if result.outcome == "failed":
            return f"{result.cell.name}: failed, {result.detail.partition(chr(10))[0]}"
        rates = " / ".join(units.number(point.bytes_per_s / 1e6, 0) for point in result.points)
        return f"{result.cell.name}: {rates} MB/s"

    def report(
        self, roots: Sequence[Path], out: Path | None, output: Output, *, archives: bool = False
    ) -> bool:
        comparison = report_transport(roots[0], out, output)
        files = TransportFiles(roots[0].resolve())
        manifest = files.read_manifest()
        is_whole = len(files.read_results(manifest)) == len(manifest.cells)
        return is_whole and not any(row.num_failed for row in comparison.rows)


KIND = TransportKind()
