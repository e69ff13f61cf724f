"""Files of a comparison: `bench.json` with its cells, `cell.json` with each result; archives."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path

import msgspec

from engine.errors import ConfigError
from engine.files import read_regular
from engine.trace.reader import MAX_UNPACKED_BYTES, read_table
from engine.trace.records import (
    Consumption,
    Episode,
    Event,
    Production,
    Record,
    Staleness,
    table_of,
)
from tianji_cli.bench.cells import CampaignFiles, Manifest, Result, check_known, in_blocks
from tianji_cli.bench.comparison.measure import Figures
from tianji_cli.bench.comparison.stop_rule import Outcome
from tianji_cli.bench.kinds import COMPARISON
from tianji_cli.bench.process_tree import LeftFile, Leftover
from tianji_cli.bench.systems.base import CellPaths, Installed, Job, ParityRow
from tianji_cli.bench.tasks.suite import SYSTEMS, Suite, Task
from tianji_cli.storage.comparison_dir import refuse_others
from tianji_cli.storage.json_files import write_json
from tianji_cli.storage.masking import redacted
from tianji_cli.storage.safe_files import make_inside, write_file

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


LAUNCH_S = 12.0
"""Seconds planned for launch and end of a cell, in addition to its training."""


def make_cells(suite: Suite, systems: Sequence[str], seeds: Sequence[int]) -> list[Cell]:
    """Randomised blocks: all systems run a task with one seed before the next seed begins.

    A slow drift of the machine then hits all systems alike, and the ratios within a block are
    paired. The order within a block is random but the same for the same suite and seeds.
    """
    able = {
        name: [system for system in systems if system in task.systems]
        for name, task in suite.tasks.items()
    }
    return [
        Cell(task=task, system=system, seed=seed)
        for task, system, seed in in_blocks(suite.name, able, seeds)
    ]


def planned_s(suite: Suite, cells: Sequence[Cell]) -> float:
    """How long these cells take if each uses up its budget, in seconds."""
    return sum(suite.tasks[cell.task].budget_s + LAUNCH_S for cell in cells)


def shortest_s(suite: Suite, cells: Sequence[Cell]) -> float:
    """How long they take if each reaches its threshold at once, in seconds."""
    return sum(suite.tasks[cell.task].min_s + LAUNCH_S for cell in cells)


def archive(root: Path, target: Path) -> None:
    """Copies a finished benchmark: small, and without the paths of the machine it ran on.

    What the report is made of is copied, the trace tables compressed; TianJi's own runs, drivers'
    raw records and printed output stay behind. The report of the archive has the same figures.

    Args:
        root: Of the benchmark.
        target: May exist, but must not hold a benchmark.

    Raises:
        ConfigError: There is one at the target, or none at the root.
        OSError: It cannot be written.
    """
    source, kept = BenchFiles(root.resolve()), BenchFiles(target.resolve())
    if kept.manifest.exists():
        raise ConfigError(
            "a benchmark is kept there and is not overwritten",
            where=str(target),
            fix="give another --out, or remove it",
        )
    refuse_others(kept.root)
    manifest = source.read_manifest()
    for cell, result in source.read_results(manifest).items():
        there = kept.files(cell)
        make_inside(kept.root, there.trace)
        for kind in REPORT_TABLES:
            _pack(source.files(cell).trace, f"{table_of(kind)}.jsonl", there.trace)
        kept.write_result(cell, redacted(result))
    write_json(kept.manifest, redacted(manifest))


def _pack(trace: Path, name: str, directory: Path) -> None:
    """Compresses one table, unless it is compressed; the same rows give the same bytes."""
    table, packed = trace / name, trace / f"{name}.gz"
    if table.is_file() and table.stat().st_size:
        data = gzip.compress(read_regular(table, MAX_UNPACKED_BYTES), mtime=0)
    elif packed.is_file():  # of an archive
        data = read_regular(packed, MAX_UNPACKED_BYTES)
    else:
        return
    write_file(directory / packed.name, data)
