"""The files of a benchmark that is made of cells: one document that says what it is, and in a
directory for each cell one that says what that did."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeVar

from tianji_cli.anonymous import anonymous
from tianji_cli.bench.machine import Machine, check_same
from tianji_cli.documents import read_json, write_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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


CellT = TypeVar("CellT", bound=AnyCell)
ResultT = TypeVar("ResultT", bound=AnyResult)


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
        return self.root / "cells" / cell.name

    def result(self, cell: AnyCell) -> Path:
        """Written last: a cell without it is not finished."""
        return self.cell(cell) / "cell.json"


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


def keep(files: CellFiles, manifest: object, results: Iterable[AnyResult]) -> None:
    """Writes what a report is made of to another place: without the runs, without paths.

    Raises:
        OSError: It cannot be written.
    """
    files.root.mkdir(parents=True, exist_ok=True)
    write_json(files.manifest, anonymous(manifest))
    for result in results:
        files.cell(result.cell).mkdir(parents=True, exist_ok=True)
        write_result(files, anonymous(result))


def write_report(files: CellFiles, comparison: object, figure: Figure) -> Path:
    """Writes figures and plot.

    Returns:
        The PNG.

    Raises:
        OSError: They cannot be written.
    """
    from tianji_cli.render.figure_style import save

    files.plots.mkdir(parents=True, exist_ok=True)
    png, _ = save(figure, files.plots, files.kind)
    write_json(files.comparison, comparison)
    return png
