"""The files of a benchmark: `bench.json` says what it is, each `cell.json` what one cell did."""

from __future__ import annotations

from pathlib import Path

import msgspec

from engine.trace.reader import read_table
from engine.trace.records import Consumption, Episode, Event, Production, Record, Staleness
from tianji_cli.baselines.base import CellPaths, Installed, Job, ParityRow
from tianji_cli.bench.cell_files import CellFiles, check_known, read_finished
from tianji_cli.bench.judge import Outcome
from tianji_cli.bench.machine import Load, Machine
from tianji_cli.bench.measure import Figures
from tianji_cli.bench.shared_memory import LeftFile
from tianji_cli.bench.suite import PEERS, Suite, Task
from tianji_cli.bench.supervise import Leftover
from tianji_cli.documents import read_json
from tianji_cli.files import is_file
from tianji_cli.git_state import GitState

BENCH_SCHEMA_VERSION = 1
WHAT = "a benchmark"
REPORT_TABLES = (Production, Consumption, Episode, Event, Staleness)
"""All that a report is made of."""


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """One system doing one task once. The block is its seed: all systems of a block are paired."""

    task: str
    peer: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.task}/{self.peer}-seed{self.seed}"

    def job(self, task: Task, scratch: Path) -> Job:
        """What its driver is told; `task` is with the overrides of its system."""
        return Job(
            peer=self.peer,
            task_name=self.task,
            task=task,
            seed=self.seed,
            scratch=str(scratch),
        )


class CellResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a cell; `figures` can be rebuilt from its `trace/`."""

    schema_version: int = BENCH_SCHEMA_VERSION
    cell: Cell
    outcome: Outcome
    detail: str = ""
    figures: Figures = Figures()
    started_at: str
    launched_s: float = 0.0
    """CLOCK_MONOTONIC at launch."""
    stop_asked_s: float | None = None
    """Since launch."""
    ended_s: float | None = None
    """Since launch: the first process was gone."""
    exit_code: int | None = None
    peak_rss_bytes: int = 0
    leftovers: list[Leftover] = []
    left_files: list[LeftFile] = []
    load: Load | None = None
    machine_id: str
    command: list[str] = []
    versions: dict[str, str] = {}


class BenchManifest(msgspec.Struct, frozen=True, kw_only=True):
    """`bench.json`."""

    schema_version: int = BENCH_SCHEMA_VERSION
    bench_id: str
    argv: list[str]
    suite: Suite
    peers: dict[str, Installed | None]
    """By name; null for one that is missing."""
    seeds: list[int]
    cells: list[Cell]
    """In the order in which they run."""
    parity: dict[str, dict[str, list[ParityRow]]]
    """By task and peer."""
    unable: dict[str, dict[str, str]] = {}
    """By task and peer: why a peer of this benchmark has no part in that task."""
    caveats: list[str]
    machine: Machine
    git: GitState
    started_at: str
    planned_s: float


class BenchPaths(CellFiles):
    """Paths inside `results/bench-<id>/`."""

    kind = "bench"

    @property
    def report(self) -> Path:
        return self.root / "report.html"

    def files(self, cell: Cell) -> CellPaths:
        """Of one cell."""
        return CellPaths(self.cell(cell))


def is_bench(place: Path) -> bool:
    """Whether a directory holds a comparison of systems."""
    return is_file(BenchPaths(place).manifest)


def read_manifest(paths: BenchPaths) -> BenchManifest:
    """Reads `bench.json`.

    Raises:
        ConfigError: There is none, it is damaged, or newer than this program.
    """
    manifest = read_json(paths.manifest, BenchManifest, BENCH_SCHEMA_VERSION, WHAT)
    names = {*manifest.peers, *(cell.peer for cell in manifest.cells)}
    check_known("peers", names, PEERS, paths.manifest)
    return manifest


def read_results(paths: BenchPaths, manifest: BenchManifest) -> dict[Cell, CellResult]:
    """The finished cells.

    Raises:
        ConfigError: A file is damaged, or was written on another machine.
    """
    cells, machine = manifest.cells, manifest.machine
    return read_finished(paths, cells, machine, CellResult, BENCH_SCHEMA_VERSION, WHAT)


def read_rows(trace: Path) -> list[Record]:
    """The rows of all `REPORT_TABLES` of one cell.

    Raises:
        ConfigError: A table is damaged.
    """
    return [
        *read_table(trace, Production),
        *read_table(trace, Consumption),
        *read_table(trace, Episode),
        *read_table(trace, Event),
        *read_table(trace, Staleness),
    ]
