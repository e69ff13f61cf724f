"""The files of a scaling benchmark: `scaling.json` says what it is, each `cell.json` what one run
did."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from tianji_cli.bench.cell_files import CellFiles, read_finished
from tianji_cli.bench.machine import Load, Machine
from tianji_cli.bench.schedule import in_blocks
from tianji_cli.documents import read_json
from tianji_cli.files import is_file
from tianji_cli.git_state import GitState
from tianji_cli.inventory import Inventory
from tianji_cli.scaling.suite import ScalingSuite

SCALING_SCHEMA_VERSION = 1
WHAT = "a benchmark of scaling"
RUN = "run"
Outcome = Literal["reached", "censored", "failed"]


class ScalingCell(msgspec.Struct, frozen=True, kw_only=True):
    """One run: so many nodes, this seed."""

    nodes: int
    seed: int

    @property
    def name(self) -> str:
        return f"nodes-{self.nodes}-seed{self.seed}"


class ScalingFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What one run did, from its own summary and trace."""

    collect_per_s: float | None = None
    """Env steps over all nodes, in the steady window."""
    time_to_threshold_s: float | None = None
    steps_to_threshold: int | None = None
    return_mean: float | None = None
    wall_s: float = 0.0
    lag_mean: float | None = None
    lag_max: int | None = None
    used_cores: float | None = None
    """Processor time of the run's own processes, on all hosts, over the time that they ran."""
    used_cores_apart: float | None = None
    """Of them, what actors and learners did not use: coordinator, buffers, reducer."""


class ScalingResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a run; its own files are in `run/` beside it."""

    schema_version: int = SCALING_SCHEMA_VERSION
    cell: ScalingCell
    outcome: Outcome
    detail: str = ""
    figures: ScalingFigures = ScalingFigures()
    started_at: str
    busy_share: float | None = None
    """How busy this machine was during the run, by whatever ran on it: 1 is all its cores."""
    load: Load | None = None
    """Just before."""
    exit_code: int | None = None
    machine_id: str
    command: list[str] = []
    versions: dict[str, dict[str, str]] = {}
    """By host, of its packages; cells of before list none."""


class ScalingManifest(msgspec.Struct, frozen=True, kw_only=True):
    """`scaling.json`."""

    schema_version: int = SCALING_SCHEMA_VERSION
    bench_id: str
    argv: list[str]
    suite: ScalingSuite
    inventory: Inventory
    seeds: list[int]
    cells: list[ScalingCell]
    """In the order in which they run."""
    machine: Machine
    versions: dict[str, str] = {}
    """Of TianJi and its packages here; documents of before list none."""
    git: GitState
    started_at: str


class ScalingPaths(CellFiles):
    """Where they lie."""

    kind = "scaling"


def make_cells(suite: ScalingSuite, seeds: Sequence[int]) -> list[ScalingCell]:
    """Randomised blocks: all numbers of nodes run with one seed before the next seed begins."""
    blocks = in_blocks(suite.name, {"nodes": suite.nodes}, seeds)
    return [ScalingCell(nodes=nodes, seed=seed) for _, nodes, seed in blocks]


def is_scaling(place: Path) -> bool:
    """Whether a directory holds a benchmark of scaling."""
    return is_file(ScalingPaths(place).manifest)


def read_manifest(paths: ScalingPaths) -> ScalingManifest:
    """Reads `scaling.json`.

    Raises:
        ConfigError: There is none, it is damaged, or newer than this program.
    """
    return read_json(paths.manifest, ScalingManifest, SCALING_SCHEMA_VERSION, WHAT)


def read_results(
    paths: ScalingPaths, manifest: ScalingManifest
) -> dict[ScalingCell, ScalingResult]:
    """The finished cells.

    Raises:
        ConfigError: A file is damaged, or was written on another machine.
    """
    cells, machine = manifest.cells, manifest.machine
    return read_finished(paths, cells, machine, ScalingResult, SCALING_SCHEMA_VERSION, WHAT)
