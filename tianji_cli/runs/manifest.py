"""`manifest.json`: what was run, from which code, on which machines."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from engine.control_protocol import HostFacts
from engine.progress import Resumed
from engine.spec import Experiment
from engine.trace.records import SCHEMA_VERSION
from engine.trace.warm_start import WarmStart
from tianji_cli.config.inventory import Inventory
from tianji_cli.git_state import GitState, git_state
from tianji_cli.planning.chosen import Automatic
from tianji_cli.planning.resources import ProcessResources
from tianji_cli.storage.clock_sync import ClockOffset
from tianji_cli.storage.json_files import write_json
from tianji_cli.storage.ownership import checksum_of, note_own
from tianji_cli.storage.run_dir import RunPaths
from tianji_cli.storage.safe_files import PRIVATE_MODE

DECIDING = ("run_id", "experiment", "inventory")
"""The parts of a manifest that decide what a run resumed from it does."""


class RunManifest(msgspec.Struct, frozen=True, kw_only=True):
    """Provenance of a run, without values of `env`."""

    schema_version: int = SCHEMA_VERSION
    run_id: str
    argv: list[str]
    experiment: Experiment
    inventory: Inventory
    git: GitState
    versions: dict[str, str]
    hosts: dict[str, HostFacts]
    processes: dict[str, ProcessResources]
    seeds: list[int]
    started_at: str
    clock_offsets_s: dict[str, float]
    clock_errors_s: dict[str, float]
    resumed_from: Resumed | None = None
    init_from: WarmStart | None = None
    automatic: Automatic | None = None


def write_manifest(
    paths: RunPaths,
    experiment: Experiment,
    inventory: Inventory,
    hosts: dict[str, HostFacts],
    processes: dict[str, ProcessResources],
    offsets: Mapping[str, ClockOffset],
    resumed: Resumed | None = None,
    warm_start: WarmStart | None = None,
    automatic: Automatic | None = None,
) -> RunManifest:
    """Writes the manifest of a run that is about to start.

    Args:
        paths, experiment, inventory: The run.
        hosts: Facts about each, the coordinator's first.
        processes: Resources of each.
        offsets: Their monotonic clocks minus that of the coordinator's host.
        resumed: What the run resumes, if it resumes one.
        warm_start: The weights of a former run that it starts with, if it does.
        automatic: What of the experiment was chosen, if anything was.
    """
    manifest = RunManifest(
        run_id=paths.run_id,
        argv=["tianji", *sys.argv[1:]],
        experiment=experiment,
        inventory=inventory,
        git=git_state(Path(__file__).resolve().parents[2]),
        versions=next(iter(hosts.values())).versions,
        hosts=hosts,
        processes=processes,
        seeds=[experiment.seed],
        started_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        clock_offsets_s={host: item.offset_ns * 1e-9 for host, item in offsets.items()},
        clock_errors_s={host: item.error_ns * 1e-9 for host, item in offsets.items()},
        resumed_from=resumed,
        init_from=warm_start,
        automatic=automatic,
    )
    data = write_json(paths.manifest, manifest, PRIVATE_MODE)
    note_own(checksum_of(data, only=DECIDING))
    return manifest
