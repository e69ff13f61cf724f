"""Runs one cell of a scaling benchmark: `tianji up` on the first N hosts, as a user would."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import psutil

from engine.errors import ConfigError
from engine.search_path import module_command
from engine.trace.reader import read_summary, read_table
from engine.trace.records import Resources
from tianji_cli.analysis.run import read_manifest
from tianji_cli.bench.cells import now_text
from tianji_cli.bench.child import Ended, TimeLimit, run_child
from tianji_cli.bench.compatibility import host_versions
from tianji_cli.bench.machine import load_now
from tianji_cli.bench.process_tree import clean_environment
from tianji_cli.bench.scaling.records import (
    RUN,
    ScalingCell,
    ScalingFigures,
    ScalingFiles,
    ScalingManifest,
    ScalingResult,
)
from tianji_cli.config.inventory_file import as_file
from tianji_cli.storage.json_files import write_json
from tianji_cli.storage.masking import masked
from tianji_cli.storage.run_dir import RunPaths
from tianji_cli.storage.safe_files import PRIVATE_MODE, clear

COMPUTING = ("actor-", "learner-")


def measure(run: RunPaths) -> ScalingFigures:
    """Reads summary and trace of a run that ended well.

    Raises:
        ConfigError: One is missing or damaged.
    """
    summary = read_summary(run.summary)
    if summary is None:
        raise ConfigError("it wrote no summary", where=str(run.root))
    resources = read_table(run.trace, Resources)
    apart = [row for row in resources if not row.process.startswith(COMPUTING)]
    return ScalingFigures(
        collect_per_s=summary.collect_per_s,
        time_to_threshold_s=summary.time_to_threshold_s,
        steps_to_threshold=summary.steps_to_threshold,
        return_mean=summary.return_mean,
        wall_s=summary.wall_s,
        lag_mean=summary.lag.mean,
        lag_max=summary.lag.max,
        used_cores=used_cores(resources),
        used_cores_apart=used_cores(apart),
    )


def versions_of(run: RunPaths) -> dict[str, dict[str, str]]:
    """By host, of the packages that it ran with; none if the run did not come so far."""
    try:
        return host_versions(read_manifest(run.manifest).data)
    except ConfigError:
        return {}


def used_cores(rows: Iterable[Resources]) -> float | None:
    """Processor seconds per second of all these processes, each between its own samples."""
    spans: dict[tuple[str, str, int], list[Resources]] = {}
    for row in rows:
        spans.setdefault((row.host, row.process, row.pid), []).append(row)
    total, is_known = 0.0, False
    for samples in spans.values():
        samples.sort(key=lambda row: row.t_s)
        duration_s = samples[-1].t_s - samples[0].t_s
        if duration_s > 0:
            is_known = True
            total += (samples[-1].cpu_s - samples[0].cpu_s) / duration_s
    return round(total, 3) if is_known else None


INVENTORY = "inventory.json"
LAUNCH_S = 120.0
"""Beyond the budget, for provisioning and the end; a run that takes longer has hung."""
GRACE_S = 40.0
_ROOT = Path(__file__).resolve().parents[3]


def run_cell(
    manifest: ScalingManifest,
    paths: ScalingFiles,
    cell: ScalingCell,
    show: Callable[[float], None],
) -> ScalingResult:
    """Runs one cell to its end; no process of it is left running.

    Args:
        manifest, paths, cell: What and where.
        show: Called now and then with the seconds since launch.

    Raises:
        KeyboardInterrupt: The user stopped it; the run was ended, and nothing was concluded.
    """
    root = paths.cell(cell)
    clear(paths.root, root)
    root.mkdir(parents=True)
    argv = command_of(manifest, root, cell)
    load, started_at = load_now(), now_text()
    try:
        ended, busy_share = _run(argv, root, manifest.suite.budget_s + LAUNCH_S, show)
    finally:
        write_json(root / INVENTORY, as_file(masked(manifest.inventory)))
    figures, problem = _conclude(ended, root)
    is_reached = figures.time_to_threshold_s is not None
    return ScalingResult(
        cell=cell,
        outcome="failed" if problem else "reached" if is_reached else "censored",
        detail=problem,
        figures=figures,
        started_at=started_at,
        busy_share=round(busy_share, 3),
        load=load,
        exit_code=ended.exit_code if ended.is_by_itself else None,
        machine_id=manifest.machine.id,
        command=argv,
        versions=versions_of(RunPaths(root / RUN)),
    )


def command_of(manifest: ScalingManifest, root: Path, cell: ScalingCell) -> list[str]:
    """Writes experiment and inventory into the cell, so that it can be run again by hand.

    Both are those of the manifest: files that a user has changed since are another benchmark's.
    The values of `env` are there for this user alone, and until the run has ended.
    """
    experiment, inventory = root / "experiment.json", root / INVENTORY  # JSON is YAML
    work = manifest.suite.experiment_on(cell.nodes, cell.seed)
    write_json(experiment, work)
    write_json(inventory, as_file(manifest.inventory), PRIVATE_MODE)
    limits = [
        word for host in manifest.inventory.hosts[: cell.nodes] for word in ("--limit", host.name)
    ]
    words = ["up", str(inventory), *limits, "-x", str(experiment), "--name", RUN]
    return module_command(sys.executable, "tianji_cli.main", *words, "--results", str(root))


def _run(
    argv: list[str], root: Path, limit_s: float, show: Callable[[float], None]
) -> tuple[Ended, float]:
    """How it ended; how busy this machine was."""
    environment = {**clean_environment(), "PYTHONPATH": str(_ROOT)}
    watcher = TimeLimit(limit_s, GRACE_S, show)  # asked, the command ends its part on every host
    psutil.cpu_percent()  # from here on
    ended = run_child(argv, environment, Path.cwd(), root / "output.log", watcher)
    return ended, psutil.cpu_percent() / 100


def _conclude(ended: Ended, root: Path) -> tuple[ScalingFigures, str]:
    """What it did, or what went wrong."""
    if problem := ended.problem(root / "output.log"):
        return ScalingFigures(), problem
    try:
        return measure(RunPaths(root / RUN)), ""
    except ConfigError as error:
        return ScalingFigures(), str(error)
