"""A benchmark that can start or resume: what it is, where it is stored, what is left to do."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeAlias, TypeVar

from engine.errors import ConfigError, PreflightError
from tianji_cli.bench.cells import CampaignFiles, CellT, ManifestT, ResultT
from tianji_cli.bench.crew import Crew, run_side_by_side
from tianji_cli.storage.safe_files import locked

AnyFiles: TypeAlias = CampaignFiles[Any, Any, Any]
"""Of whatever kind: its type variables depend on each other, which no bound can say."""
FilesT = TypeVar("FilesT", bound=AnyFiles)


@dataclass(frozen=True)
class Campaign(Generic[FilesT, ManifestT, CellT]):
    """One of them.

    The process that runs its cells has held the lock of its directory since before it read
    `open_cells`, so no other process has run them in the meantime.

    Attributes:
        files: Where it is stored.
        manifest: Its description.
        open_cells: The cells still to be run, in order.
    """

    files: FilesT
    manifest: ManifestT
    open_cells: Sequence[CellT]

    @property
    def num_done(self) -> int:
        return len(self.manifest.cells) - len(self.open_cells)


def read_campaign(files: FilesT) -> Campaign[FilesT, Any, Any]:
    """Reads an existing benchmark; its finished cells are not run again.

    Raises:
        ConfigError: There is none, a file is damaged, or cells were run on another machine.
    """
    manifest = files.read_manifest()
    done = files.read_results(manifest)
    return Campaign(files, manifest, [cell for cell in manifest.cells if cell not in done])


def run_open_cells(
    campaign: Campaign[FilesT, ManifestT, CellT],
    run_cell: Callable[[CellT], ResultT | None],
    finished: Callable[[ResultT], None] = lambda _: None,
) -> dict[CellT, ResultT]:
    """Runs the open cells, while no other process does.

    Args:
        campaign: From a plan, or from `read_campaign`.
        run_cell: Runs one cell; None: it cannot be measured here, and stays open. A `Crew` can
            run several at once.
        finished: Called after each.

    Raises:
        KeyboardInterrupt: The user stopped it; interrupted cells will be run again.
    """
    results: dict[CellT, ResultT] = {}
    crew = run_cell if isinstance(run_cell, Crew) else None

    def store(cell: CellT, result: ResultT) -> None:
        campaign.files.write_result(cell, result)
        results[cell] = result
        if crew is not None:
            crew.stored(result)

    if crew is not None and crew.num_parallel > 1:
        run_side_by_side(crew, campaign.open_cells, store, finished)
        return results
    for cell in campaign.open_cells:
        result = run_cell(cell)
        if result is not None:
            store(cell, result)
            finished(result)
    return results


def check_finished(results: Collection[object], root: Path) -> None:
    """Raises ConfigError if the benchmark at `root` has no finished cell yet."""
    if not results:
        raise ConfigError(
            "nothing has been finished, so there is nothing to report",
            where=str(root),
            fix=f"tianji bench --resume {root}",
        )


@contextmanager
def exclusively(root: Path) -> Iterator[None]:
    """Locks the benchmark: no other command runs its cells meanwhile.

    Args:
        root: Its directory, which exists.

    Raises:
        ConfigError: A command is running it.
        PreflightError: It cannot be locked.
    """
    busy = ConfigError(
        "another command is running it",
        where=str(root),
        fix="wait for it, or interrupt it and continue with --resume",
    )
    with ExitStack() as held:
        try:
            held.enter_context(locked(root, busy))
        except OSError as error:
            raise PreflightError(f"cannot be locked: {error.strerror}", where=str(root)) from error
        yield
