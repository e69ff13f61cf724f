"""The files of a benchmark, of whatever kind: one document that says what it is, and for each
finished cell one that says what that did."""

from __future__ import annotations

import random
import sys
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Generic, Protocol, Self, TypedDict, TypeVar, cast

import msgspec

from engine.errors import ConfigError
from tianji_cli.bench.compatibility import code_state, own_versions
from tianji_cli.bench.kinds import KindInfo
from tianji_cli.bench.machine import Load, Machine, check_same, this_machine
from tianji_cli.git_state import GitState
from tianji_cli.storage.comparison_dir import refuse_others
from tianji_cli.storage.json_files import read_json, write_json
from tianji_cli.storage.masking import redacted
from tianji_cli.storage.safe_files import make_inside, named_inside

SCHEMA_VERSION = 1
"""Of the documents of all kinds."""


class AnyCell(Hashable, Protocol):
    """One of the units of work that a benchmark runs one after the other."""

    @property
    def name(self) -> str: ...


class AnySuite(Protocol):
    """The work of the cell, as data."""

    @property
    def name(self) -> str: ...

    @property
    def summary(self) -> str: ...


SuiteT_co = TypeVar("SuiteT_co", bound=AnySuite, covariant=True)
CellT_co = TypeVar("CellT_co", bound=AnyCell, covariant=True)


class Manifest(msgspec.Struct, Generic[SuiteT_co, CellT_co], frozen=True, kw_only=True):
    """Description of a benchmark; each kind adds its own fields.

    Attributes:
        argv: The command that began it.
        suite: The work, with all settings.
        cells: In the order in which they run.
        versions: Of TianJi and its packages here; older documents list none.
        started_at: UTC.
    """

    schema_version: int = SCHEMA_VERSION
    bench_id: str
    argv: list[str]
    suite: SuiteT_co
    cells: list[CellT_co]
    machine: Machine
    versions: dict[str, str] = {}
    git: GitState
    started_at: str


class Result(msgspec.Struct, Generic[CellT_co], frozen=True, kw_only=True):
    """Result of a cell; each kind adds what it measured.

    Attributes:
        outcome: One word; the possible ones depend on the kind.
        detail: For people: what went wrong.
        started_at: UTC; empty in older results of studies.
        load: How busy the machine was just before.
        command: What was run.
    """

    schema_version: int = SCHEMA_VERSION
    cell: CellT_co
    outcome: str
    detail: str = ""
    started_at: str = ""
    load: Load | None = None
    machine_id: str
    command: list[str] = []


class Beginning(TypedDict):
    """What every manifest states about the moment at which it is made."""

    argv: list[str]
    machine: Machine
    versions: dict[str, str]
    git: GitState
    started_at: str


def beginning() -> Beginning:
    """For a benchmark that begins now, on this machine."""
    return {
        "argv": ["tianji", *sys.argv[1:]],
        "machine": this_machine(),
        "versions": own_versions(),
        "git": code_state(),
        "started_at": now_text(),
    }


def now_text() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


ManifestT = TypeVar("ManifestT", bound=Manifest[AnySuite, AnyCell])
CellT = TypeVar("CellT", bound=AnyCell)
ResultT = TypeVar("ResultT", bound=Result[AnyCell])


class CampaignFiles(Generic[ManifestT, CellT, ResultT]):
    """Paths inside `results/<bench id>/`, and how they are read and written.

    Args:
        root: The benchmark's own directory.
    """

    kind: KindInfo
    manifest_type: type[ManifestT]
    result_type: type[ResultT]
    more_report_files: tuple[str, ...] = ()
    """Names that its report writes in addition to the usual ones."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def manifest(self) -> Path:
        return self.root / f"{self.kind.stem}.json"

    @property
    def comparison(self) -> Path:
        return self.root / "comparison.json"

    @property
    def plots(self) -> Path:
        return self.root / "plots"

    @property
    def report(self) -> Path:
        return self.root / "report.html"

    def cell(self, cell: CellT) -> Path:
        return named_inside(self.root / "cells", cell.name)

    def result(self, cell: CellT) -> Path:
        """Written last: a cell without it is not finished."""
        return self.cell(cell) / "cell.json"

    def read_manifest(self) -> ManifestT:
        """What the benchmark is.

        Raises:
            ConfigError: There is no document, it is damaged, or newer than this program.
        """
        manifest = read_json(self.manifest, self.manifest_type, SCHEMA_VERSION, self.kind.title)
        self.check_manifest(manifest)
        return manifest

    def check_manifest(self, manifest: ManifestT) -> None:
        """Raises ConfigError if it names something that this version of TianJi does not have."""

    def read_results(self, manifest: ManifestT) -> dict[CellT, ResultT]:
        """Results of the finished cells.

        Raises:
            ConfigError: A file is damaged, or was written on another machine.
        """
        found = {
            cell: read_json(self.result(cell), self.result_type, SCHEMA_VERSION, self.kind.title)
            for cell in self.cells_of(manifest)
            if self.result(cell).is_file()
        }
        ids = [result.machine_id for result in found.values()]
        check_same(manifest.machine, ids, str(self.root))
        return found

    def cells_of(self, manifest: ManifestT) -> list[CellT]:
        """In the order in which they run."""
        return cast("list[CellT]", manifest.cells)  # no bound can say whose cells they are

    def write_result(self, cell: CellT, result: ResultT) -> None:
        """Marks a cell as finished; its directory exists."""
        write_json(self.result(cell), result)

    def keep_at(self, target: Self, manifest: ManifestT, results: Mapping[CellT, ResultT]) -> None:
        """Copies the inputs of a report to another place: without the runs, without paths.

        Raises:
            ConfigError: Another benchmark is stored there.
            OSError: It cannot be written.
        """
        manifest = redacted(manifest)
        target.check_free(manifest)
        target.root.mkdir(parents=True, exist_ok=True)
        write_json(target.manifest, manifest)
        for cell, result in results.items():
            make_inside(target.root, target.cell(cell))
            target.write_result(cell, redacted(result))

    def check_free(self, manifest: ManifestT) -> None:
        """A copy may be renewed; cells of two benchmarks have the same names and would be mixed."""
        if not self.manifest.exists():
            refuse_others(self.root, *self.more_report_files)
            return
        kept = self.read_manifest()
        if (kept.bench_id, kept.started_at) != (manifest.bench_id, manifest.started_at):
            what = self.kind.title.removeprefix("a ")
            raise ConfigError(
                f"another {what} is kept there and is not overwritten",
                where=str(self.root),
                fix="give another --out, or remove it",
            )

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and vars(other) == vars(self)

    def __hash__(self) -> int:
        return hash(self.root)


def check_known(what: str, names: Iterable[str], known: Collection[str], path: Path) -> None:
    """Raises ConfigError if a document names something this version of TianJi does not have."""
    if unknown := sorted(set(names).difference(known)):
        raise ConfigError(
            f"unknown {what}: {', '.join(unknown)}",
            where=str(path),
            fix="read it with the version of TianJi that wrote it",
        )


SideT = TypeVar("SideT")


def in_blocks(
    name: str, sides: Mapping[str, Sequence[SideT]], seeds: Sequence[int]
) -> list[tuple[str, SideT, int]]:
    """(task, side, seed) of every cell; within a block the sides of each task are shuffled.

    Args:
        name: Name of the suite; with task and seed it decides the order.
        sides: What is compared, by task.
        seeds: One block each.
    """
    cells = []
    for seed in seeds:
        for task, compared in sides.items():
            block = [(task, side, seed) for side in compared]
            random.Random(f"{name} {task} {seed}").shuffle(block)
            cells += block
    return cells
