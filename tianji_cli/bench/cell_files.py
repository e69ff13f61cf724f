"""The files of a benchmark that is made of cells: one document that says what it is, and in a
directory for each cell one that says what that did."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeVar

import msgspec

from engine.errors import ConfigError
from tianji_cli.anonymous import anonymous
from tianji_cli.bench.machine import Machine, check_same
from tianji_cli.comparison_dir import refuse_others
from tianji_cli.documents import read_json, write_json, writing
from tianji_cli.safe_files import make_inside, named_inside

if TYPE_CHECKING:
    from tianji_cli.render.figures_matplotlib import Figure


class AnyCell(Protocol):
    """What a cell needs to have files."""

    @property
    def name(self) -> str: ...


class AnyResult(Protocol):
    """What a finished cell says, whatever it measured."""

    @property
    def cell(self) -> AnyCell: ...

    @property
    def machine_id(self) -> str: ...


class AnyManifest(Protocol):
    """What the document of a benchmark says of which one it is."""

    @property
    def schema_version(self) -> int: ...

    @property
    def bench_id(self) -> str: ...

    @property
    def started_at(self) -> str: ...


class _Identity(msgspec.Struct):
    bench_id: str
    started_at: str


CellT = TypeVar("CellT", bound=AnyCell)
ResultT = TypeVar("ResultT", bound=AnyResult)


ANOTHER_PLACE = "free space or permissions there, or give another place with --out DIR"
"""What mends a report that cannot be written."""


@dataclass(frozen=True)
class CellFiles:
    """Paths inside `results/<bench id>/`.

    Args:
        root: The benchmark's own directory.
    """

    root: Path
    kind: ClassVar[str]
    """Names document and plot: `scaling.json`, `plots/scaling.png`."""

    @property
    def manifest(self) -> Path:
        return self.root / f"{self.kind}.json"

    @property
    def comparison(self) -> Path:
        return self.root / "comparison.json"

    @property
    def plots(self) -> Path:
        return self.root / "plots"

    def cell(self, cell: AnyCell) -> Path:
        return named_inside(self.root / "cells", cell.name)

    def result(self, cell: AnyCell) -> Path:
        """Written last: a cell without it is not finished."""
        return self.cell(cell) / "cell.json"


def check_known(kind: str, names: Iterable[str], known: Collection[str], path: Path) -> None:
    """Raises ConfigError if a document names what this version of TianJi does not have."""
    if unknown := sorted(set(names).difference(known)):
        raise ConfigError(
            f"unknown {kind}: {', '.join(unknown)}",
            where=str(path),
            fix="read it with the version of TianJi that wrote it",
        )


def read_finished(
    files: CellFiles,
    cells: Sequence[CellT],
    machine: Machine,
    kind: type[ResultT],
    newest: int,
    what: str,
) -> dict[CellT, ResultT]:
    """What the finished cells did.

    Args:
        files: Of the benchmark.
        cells: Of its document.
        machine: That it was begun on.
        kind, newest, what: Of a result; see `read_json`.

    Raises:
        ConfigError: A file is damaged, or was written on another machine.
    """
    found = {
        cell: read_json(files.result(cell), kind, newest, what)
        for cell in cells
        if files.result(cell).is_file()
    }
    check_same(machine, [result.machine_id for result in found.values()], str(files.root))
    return found


def write_result(files: CellFiles, result: AnyResult) -> None:
    """Makes a cell finished."""
    write_json(files.result(result.cell), result)


def write_report(
    source: CellFiles,
    out: Path | None,
    manifest: AnyManifest,
    results: Iterable[AnyResult],
    comparison: object,
    figure: Figure,
) -> Path:
    """Writes figures and plot.

    Args:
        source: The benchmark.
        out: Where they go, with all that is needed to make them again, which are small files
            without the runs and without paths; None: into the benchmark.
        manifest, results: What they are made of.
        comparison, figure: What is written.

    Returns:
        The PNG.

    Raises:
        ConfigError: Another benchmark is kept there.
        PreflightError: The directory cannot be written.
    """
    from tianji_cli.render.figure_style import save

    target = type(source)((out or source.root).resolve())
    with writing("the report", target.root, ANOTHER_PLACE):
        if target != source:
            keep(target, manifest, results)
        make_inside(target.root, target.plots)
        png, _ = save(figure, target.plots, target.kind)
        write_json(target.comparison, comparison)
    return png


def keep(files: CellFiles, manifest: AnyManifest, results: Iterable[AnyResult]) -> None:
    """Writes what a report is made of to another place: without the runs, without paths.

    Raises:
        ConfigError: Another benchmark is kept there.
        OSError: It cannot be written.
    """
    manifest = anonymous(manifest)
    _check_free(files, manifest)
    files.root.mkdir(parents=True, exist_ok=True)
    write_json(files.manifest, manifest)
    for result in results:
        make_inside(files.root, files.cell(result.cell))
        write_result(files, anonymous(result))


def _check_free(files: CellFiles, manifest: AnyManifest) -> None:
    """A copy may be renewed; cells of two benchmarks have the same names and would be mixed."""
    if not files.manifest.exists():
        refuse_others(files.root)
        return
    kept = read_json(files.manifest, _Identity, manifest.schema_version, "a benchmark")
    if (kept.bench_id, kept.started_at) != (manifest.bench_id, manifest.started_at):
        raise ConfigError(
            "another benchmark is kept there and is not overwritten",
            where=str(files.root),
            fix="give another --out, or remove it",
        )
