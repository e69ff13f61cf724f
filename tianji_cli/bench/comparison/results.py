"""The files of a benchmark: its description `bench.json`, and `cell.json` with each result."""

from __future__ import annotations

from pathlib import Path

import msgspec

from engine.trace.reader import read_table
from engine.trace.records import Consumption, Episode, Event, Production, Record, Staleness
from tianji_cli.bench.cells import CampaignFiles, Manifest, Result, check_known
from tianji_cli.bench.comparison.measure import Figures
from tianji_cli.bench.comparison.stop_rule import Outcome
from tianji_cli.bench.kinds import COMPARISON
from tianji_cli.bench.process_tree import Leftover
from tianji_cli.bench.shared_memory import LeftFile
from tianji_cli.bench.systems.base import CellPaths, Installed, Job, ParityRow
from tianji_cli.bench.tasks.suite import SYSTEMS, Suite, Task

REPORT_TABLES = (Production, Consumption, Episode, Event, Staleness)
"""All inputs of a report."""


class Cell(msgspec.Struct, frozen=True, kw_only=True, rename={"system": "peer"}):
    """One system doing one task once. The block is its seed: all systems of a block are paired."""

    task: str
    system: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.task}/{self.system}-seed{self.seed}"

    def job(self, task: Task, scratch: Path) -> Job:
        """Input of its driver; `task` includes the overrides of its system."""
        return Job(
            system=self.system,
            task_name=self.task,
            task=task,
            seed=self.seed,
            scratch=str(scratch),
        )


class CellResult(Result[Cell], frozen=True, kw_only=True):
    """Result of a cell; `figures` can be rebuilt from its `trace/`."""

    outcome: Outcome
    figures: Figures = Figures()
    launched_s: float = 0.0
    """CLOCK_MONOTONIC at launch."""
    stop_asked_s: float | None = None
    """Since launch."""
    ended_s: float | None = None
    """Since launch: the first process was gone."""
    exit_code: int | None = None
    peak_rss_bytes: int = 0
    leftovers: list[Leftover] = msgspec.field(default_factory=list)
    left_files: list[LeftFile] = msgspec.field(default_factory=list)
    versions: dict[str, str] = msgspec.field(default_factory=dict)


class BenchManifest(Manifest[Suite, Cell], frozen=True, kw_only=True, rename={"systems": "peers"}):
    """`bench.json`."""

    systems: dict[str, Installed | None]
    """By name; null for one that is missing."""
    seeds: list[int]
    parity: dict[str, dict[str, list[ParityRow]]]
    """By task and system."""
    unable: dict[str, dict[str, str]] = msgspec.field(default_factory=dict)
    """Why a system of this benchmark takes no part in a task, by task and system."""
    caveats: list[str]
    planned_s: float


class BenchFiles(CampaignFiles[BenchManifest, Cell, CellResult]):
    """Paths inside `results/bench-<id>/`."""

    kind = COMPARISON
    manifest_type = BenchManifest
    result_type = CellResult

    def check_manifest(self, manifest: BenchManifest) -> None:
        names = {*manifest.systems, *(cell.system for cell in manifest.cells)}
        check_known("systems", names, SYSTEMS, self.manifest)

    def files(self, cell: Cell) -> CellPaths:
        """Of one cell."""
        return CellPaths(self.cell(cell))


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
