"""A benchmark or study that may start or go on: what it is, where it lies, what is left to do."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from engine.errors import ConfigError
from tianji_cli.bench.machine import Machine
from tianji_cli.git_state import GitState


class AnyManifest(Protocol):
    """The document that says what it is."""

    @property
    def cells(self) -> Sequence[object]: ...

    @property
    def machine(self) -> Machine: ...

    @property
    def git(self) -> GitState: ...


class AnyFiles(Protocol):
    """Its directory, and where that document lies in it."""

    @property
    def root(self) -> Path: ...

    @property
    def manifest(self) -> Path: ...


FilesT = TypeVar("FilesT", bound=AnyFiles)
ManifestT = TypeVar("ManifestT", bound=AnyManifest)
CellT = TypeVar("CellT")


@dataclass(frozen=True)
class Undertaking(Generic[FilesT, ManifestT, CellT]):
    """One of them.

    Whoever runs its cells holds the lock of its directory since before `open_cells` were read, so
    that nobody else has run them meanwhile.

    Attributes:
        paths: Its files.
        manifest: What it is.
        open_cells: Those that are still to be run, in order.
    """

    paths: FilesT
    manifest: ManifestT
    open_cells: Sequence[CellT]

    @property
    def num_done(self) -> int:
        return len(self.manifest.cells) - len(self.open_cells)


def check_finished(results: Collection[object], root: Path) -> None:
    """Raises ConfigError if nothing of what lies at `root` has been finished yet."""
    if not results:
        raise ConfigError(
            "nothing has been finished, so there is nothing to report",
            where=str(root),
            fix=f"tianji bench --resume {root}",
        )
