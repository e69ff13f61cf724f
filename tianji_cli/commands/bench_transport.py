"""`tianji bench transport`: how fast messages get from several processes into the memory of one."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

import msgspec

from engine.errors import ConfigError
from tianji_cli.baselines.base import PeerMissingError, PeerOptions
from tianji_cli.baselines.venv_peer import options_of
from tianji_cli.bench.cell_files import write_report, write_result
from tianji_cli.bench.conditions import check_host_versions, check_versions, code_state
from tianji_cli.bench.machine import this_machine
from tianji_cli.bench.undertaking import Undertaking, check_finished
from tianji_cli.commands.bench_request import BenchRequest, Kind, conduct
from tianji_cli.files import find_file
from tianji_cli.inventory import Host, load_inventory
from tianji_cli.output import Output
from tianji_cli.render import units
from tianji_cli.scaling.suite import find_inventory
from tianji_cli.transport.compare import TransportComparison, compare
from tianji_cli.transport.hosts import Hosts
from tianji_cli.transport.methods import METHODS, OWN, Found, Place, find
from tianji_cli.transport.records import (
    TransportCell,
    TransportManifest,
    TransportPaths,
    TransportResult,
    is_transport,
    make_cells,
    read_manifest,
    read_results,
)
from tianji_cli.transport.run_cell import run_cell
from tianji_cli.transport.suite import is_transport_suite, load_transport_suite

LAUNCH_S = 4.5
"""Planned for the start and end of a cell, beside its measuring."""
EFFORT = 2.5
"""A size takes that many times `measure_s`: verification and growing counts come first."""
TransportWork: TypeAlias = Undertaking[TransportPaths, TransportManifest, TransportCell]


def wants_transport(request: BenchRequest) -> bool:
    """Whether what is to be run, or to go on, is a benchmark of transport."""
    return request.wants(is_transport, is_transport_suite)


def transport_command(request: BenchRequest, output: Output) -> int:
    """Plans, asks, runs, reports.

    Returns:
        0; 8 with `--strict` and a cell that failed; 130 if interrupted.

    Raises:
        TianJiError: Nothing could be started; says why.
    """
    request.refuse(
        {
            "--compare": "transport compares methods: choose with -s methods=[tianji,limit]",
            "--task": "transport has no tasks: choose with -s sizes_bytes=[1024]",
            "--budget": "transport has no budget: set measure_s",
            "--skip-missing": "transport measures what is installed and lists the rest",
        }
    )
    kind = Kind(is_transport, _planned, _read, with_methods_of_now, _announce, _run, _report)
    return conduct(kind, request, output)


def _report(work: TransportWork, output: Output) -> bool:
    comparison = report_transport(work.paths.root, None, output)
    is_whole = len(read_results(work.paths, work.manifest)) == len(work.manifest.cells)
    return is_whole and not any(row.num_failed for row in comparison.rows)


def report_transport(root: Path, out: Path | None, output: Output) -> TransportComparison:
    """Rebuilds tables and plot from files, and prints them.

    Args:
        root: The benchmark.
        out: Where plot and `comparison.json` go, with all that is needed to make them again; None:
            into the benchmark.

    Raises:
        ConfigError: Nothing to report, or a damaged file.
        PreflightError: The directory cannot be written.
    """
    from tianji_cli.render.figures_transport import transport_figure
    from tianji_cli.render.transport import transport_tables

    paths = TransportPaths(root.resolve())
    manifest = read_manifest(paths)
    results = read_results(paths, manifest)
    check_finished(results, root)
    comparison = compare(manifest, results)
    figure = transport_figure(comparison)
    png = write_report(paths, out, manifest, results.values(), comparison, figure)
    output.findings(comparison, transport_tables(comparison), comparison.notes, f"plot: {png}")
    return comparison


def _planned(request: BenchRequest, output: Output) -> TransportWork:
    suite = load_transport_suite(request.suite, request.settings)
    hosts = _hosts(request.inventory)
    place: Place = "between hosts" if hosts else "one host"
    wanted = [name for name in suite.methods if place in METHODS[name].places]
    found, missing = _find(wanted, request.peer_options)
    bench_id = request.new_id("bench", suite.name)
    num_blocks = request.seeds or suite.blocks
    if OWN not in found:
        raise ConfigError(
            "TianJi's own channel is not among the methods", where="methods", fix="add tianji"
        )
    manifest = TransportManifest(
        bench_id=bench_id,
        argv=["tianji", *sys.argv[1:]],
        suite=suite,
        hosts=hosts,
        num_blocks=num_blocks,
        cells=make_cells(suite, place, list(found), num_blocks),
        found=found,
        missing=missing,
        machine=this_machine(),
        git=code_state(),
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    paths = TransportPaths((request.results / bench_id).resolve())
    return Undertaking(paths, manifest, manifest.cells)


def _hosts(name: str | None) -> list[Host]:
    """Those of the inventory; `lab` is the lab that is up. None without one."""
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


def _find(names: list[str], options: PeerOptions) -> tuple[dict[str, Found], dict[str, str]]:
    """What is installed here, and why the rest is not measured."""
    found, missing = {}, {}
    for name in names:
        try:
            found[name] = find(METHODS[name], options)
        except PeerMissingError as error:
            missing[name] = f"{error.what} ({error.fix})" if error.fix else error.what
    return found, missing


def _read(root: Path) -> TransportWork:
    paths = TransportPaths(root.resolve())
    manifest = read_manifest(paths)
    done = read_results(paths, manifest)
    return Undertaking(paths, manifest, [cell for cell in manifest.cells if cell not in done])


def with_methods_of_now(work: TransportWork) -> TransportWork:
    """The same, with the methods of its open cells as they are found again.

    Raises:
        PeerMissingError: One is no longer there.
        ConfigError: One has changed since the benchmark was begun.
    """
    manifest, wanted = work.manifest, {cell.method for cell in work.open_cells}
    earlier = {name: found for name, found in manifest.found.items() if name in wanted}
    now = {
        name: find(METHODS[name], options_of(found.command[-1])) for name, found in earlier.items()
    }
    check_versions(
        {name: found.versions for name, found in earlier.items()},
        {name: found.versions for name, found in now.items()},
        str(work.paths.root),
    )
    changed = msgspec.structs.replace(manifest, found={**manifest.found, **now})
    return replace(work, manifest=changed)


def _announce(work: TransportWork, output: Output) -> None:
    manifest, suite, num_open = work.manifest, work.manifest.suite, len(work.open_cells)
    output.say(f"{manifest.bench_id}: {suite.summary}")
    output.say("; ".join(METHODS[name].title for name in manifest.found))  # which hold commas
    output.say(f"{units.plural(manifest.num_blocks, 'block')}, each in random order")
    for name, reason in manifest.missing.items():
        output.say(f"  not measured: {METHODS[name].title}: {reason}")
    if manifest.hosts:
        receiver, *senders = (host.name for host in manifest.hosts)
        output.say(f"from {', '.join(senders)} to {receiver}")
    size_s = EFFORT * suite.measure_s * len(suite.sizes_bytes)
    output.say(
        f"{units.plural(num_open, 'cell')}, about"
        f" {units.seconds(num_open * (LAUNCH_S + size_s))} in all"
    )
    for cell in work.open_cells:
        output.say(f"  {cell.name}", at_verbosity=1)


def _run(work: TransportWork, output: Output) -> None:
    manifest, paths = work.manifest, work.paths
    with ExitStack() as stack:
        hosts = None
        if manifest.hosts:
            hosts = stack.enter_context(Hosts(manifest.hosts, manifest.bench_id))
            earlier = (done.versions for done in read_results(paths, manifest).values())
            check_host_versions(earlier, hosts.versions, str(paths.root))
        lacking = _lacking(hosts, manifest)
        for number, cell in enumerate(work.open_cells, start=work.num_done + 1):
            if cell.method in lacking:
                continue
            if hosts is None:
                result = run_cell(manifest, paths, cell)
            else:
                paths.cell(cell).mkdir(parents=True, exist_ok=True)
                result = hosts.run_cell(manifest, cell)
            write_result(paths, result)
            output.say(f"{number}/{len(manifest.cells)} {_line(result)}")
        for name, reason in lacking.items():
            output.say(f"not measured: {METHODS[name].title}: {reason}")


def _lacking(hosts: Hosts | None, manifest: TransportManifest) -> Mapping[str, str]:
    if hosts is None:
        return {}
    reasons = {name: hosts.lacks(METHODS[name]) for name in manifest.found}
    return {name: reason for name, reason in reasons.items() if reason}


def _line(result: TransportResult) -> str:
    if result.outcome == "failed":
        return f"{result.cell.name}: failed, {result.detail.partition(chr(10))[0]}"
    rates = " / ".join(units.number(point.bytes_per_s / 1e6, 0) for point in result.points)
    return f"{result.cell.name}: {rates} MB/s"
