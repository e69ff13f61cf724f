"""The procedure of every benchmark: plan or read, ask, run, report; each kind has its own steps."""

from __future__ import annotations

import shlex
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeAlias, TypeVar

import typer

from engine.errors import EXIT_INCOMPLETE, EXIT_INTERRUPTED, PreflightError
from tianji_cli.bench.campaign import (
    Campaign,
    FilesT,
    check_finished,
    exclusively,
    read_campaign,
    run_open_cells,
)
from tianji_cli.bench.cells import CampaignFiles, CellT, ManifestT, ResultT
from tianji_cli.bench.compatibility import (
    check_code,
    check_machine,
    check_own_versions,
    code_state,
    note_on_code,
)
from tianji_cli.bench.kinds import KindInfo
from tianji_cli.bench.machine import MAX_BUSY_CORES, this_machine
from tianji_cli.commands.benchmarks.bench_request import BenchRequest
from tianji_cli.output import Output
from tianji_cli.render.bench.bench_live import BenchDisplay
from tianji_cli.storage.consent import Consent, words_of
from tianji_cli.storage.json_files import create_result_dir, read_document, write_json, writing
from tianji_cli.storage.ownership import checksum_of
from tianji_cli.storage.run_dir import probe_results
from tianji_cli.storage.safe_files import make_inside

if TYPE_CHECKING:
    pass
if TYPE_CHECKING:
    from tianji_cli.plotting.figures import Figure

T = TypeVar("T")


class Kind(ABC, Generic[FilesT, ManifestT, CellT, ResultT]):
    """The steps of one kind of benchmark in the common procedure.

    Attributes:
        files: The layout of its files.
        unused: By option that it does not use, the reason.
        can_merge: Whether several can share a report.
    """

    files: type[FilesT]
    unused: ClassVar[Mapping[str, str]] = {}
    can_merge = False

    @abstractmethod
    def plan(self, request: BenchRequest, output: Output) -> Campaign[FilesT, ManifestT, CellT]:
        """Makes a new plan; writes nothing yet."""

    def renew(self, work: Campaign[FilesT, ManifestT, CellT]) -> Campaign[FilesT, ManifestT, CellT]:
        """The same with the current state of what open cells need; raises if that has changed."""
        return work

    def scheduled(
        self, work: Campaign[FilesT, ManifestT, CellT], request: BenchRequest
    ) -> Campaign[FilesT, ManifestT, CellT]:
        """The same with what the user can choose whenever it starts or is resumed: how many cells
        run at once. Raises if they cannot run here."""
        return work

    @abstractmethod
    def announce(self, work: Campaign[FilesT, ManifestT, CellT]) -> Iterator[str]:
        """Prints the work and its duration, before anything starts."""

    @abstractmethod
    def runner(
        self, work: Campaign[FilesT, ManifestT, CellT], display: BenchDisplay, held: ExitStack
    ) -> Callable[[CellT], ResultT | None]:
        """A function that runs one cell: its result, or None if it cannot be measured here.

        Args:
            work: The benchmark.
            display: Shows progress of cells, and messages between cells.
            held: Closed after the last cell.
        """

    @abstractmethod
    def line(self, result: ResultT) -> str:
        """The outcome of a cell, in one line."""

    @abstractmethod
    def report(
        self, roots: Sequence[Path], out: Path | None, output: Output, *, archives: bool = False
    ) -> bool:
        """Writes and prints the results.

        Args:
            roots: Directory of the benchmark; several if `can_merge`.
            out: Directory of the report; None: the benchmark's.
            output: The command's output.
            archives: Whether to copy the data of the report to `out`.

        Returns:
            False if anything is missing, censored or failed.
        """


AnyKind: TypeAlias = Kind[Any, Any, Any, Any]


def implementation(kind: KindInfo) -> AnyKind:
    """Loads a kind by name."""
    found: AnyKind = import_module(kind.module).KIND
    return found


def conduct(
    kind: Kind[FilesT, ManifestT, CellT, ResultT],
    request: BenchRequest,
    output: Output,
    root: Path | None = None,
) -> int:
    """Plans or reads a benchmark, asks, runs, reports; with `--dry-run` it only prints the plan.

    Args:
        kind: Its kind.
        request: The user's request.
        output: The command's output.
        root: Directory of the benchmark to resume; None: a new one.

    Returns:
        0; 8 with `--strict` and something missing, censored or failed; 130 if interrupted.

    Raises:
        ConfigError: It was started under other conditions, or another command is running it.
        TianJiError: Nothing could be started, or it cannot be resumed; says why.
    """
    with ExitStack() as held:
        if root is None:
            work = kind.plan(request, output)
        else:
            work = _resumed(kind, root, request, output, held)
        work = kind.scheduled(work, request)
        _announce(kind, work, output)
        if request.dry_run:
            if output.is_json:
                output.document(work.manifest)
            return 0
        is_asked = len(work.open_cells) > 0 and not request.yes
        if is_asked and not typer.confirm("Start?", default=True, err=True):
            return EXIT_INTERRUPTED
        if root is None:
            probe_results(request.results)
            create_result_dir(work.files.manifest, work.manifest)
            held.enter_context(exclusively(work.files.root))
        where = request.resume or work.files.root.name, "--results", str(request.results)
        again = shlex.join(("tianji", "bench", "--resume", *where))
        try:
            with _as_one_error(work.files.root, again):
                _run(kind, work, output)
        except KeyboardInterrupt:
            output.say(f"interrupted; to resume: {again}")
            return EXIT_INTERRUPTED
    is_complete = kind.report([work.files.root], None, output)
    return EXIT_INCOMPLETE if request.strict and not is_complete else 0


def _announce(
    kind: Kind[FilesT, ManifestT, CellT, ResultT],
    work: Campaign[FilesT, ManifestT, CellT],
    output: Output,
) -> None:
    output.say(f"{work.manifest.bench_id}: {work.manifest.suite.summary}")
    for line in kind.announce(work):
        output.say(line)
    for cell in work.open_cells:
        output.say(f"  {cell.name}", at_verbosity=1)


def _run(
    kind: Kind[FilesT, ManifestT, CellT, ResultT],
    work: Campaign[FilesT, ManifestT, CellT],
    output: Output,
) -> None:
    display = BenchDisplay(output, len(work.manifest.cells), work.num_done)

    def finished(result: ResultT) -> None:
        display.finished(kind.line(result))
        if result.load is not None and result.load.busy_cores > MAX_BUSY_CORES:
            output.say(
                f"  note: {result.load.busy_cores:.1f} cores were busy just before this cell"
            )

    with ExitStack() as held:
        held.callback(display.close)
        run_open_cells(work, kind.runner(work, display, held), finished)


def _resumed(
    kind: Kind[FilesT, ManifestT, CellT, ResultT],
    root: Path,
    request: BenchRequest,
    output: Output,
    held: ExitStack,
) -> Campaign[FilesT, ManifestT, CellT]:
    """The benchmark to resume, if that is allowed here; it stays locked while `held`."""
    if not request.dry_run:
        held.enter_context(exclusively(root))
    work: Campaign[FilesT, ManifestT, CellT] = read_campaign(kind.files(root.resolve()))
    if work.open_cells:
        _agree(work.files.manifest, work.manifest, request, output)
    manifest = work.manifest
    check_machine(manifest.machine, this_machine(), str(root))
    if not work.open_cells:
        return work
    here = code_state()
    check_code(manifest.git, here, str(root))
    if note := note_on_code(manifest.git, here):
        output.say(note)
    check_own_versions(manifest.versions, str(root))
    return kind.renew(work)


def _agree(path: Path, manifest: object, request: BenchRequest, output: Output) -> None:
    """Asks for consent: resuming runs commands, and uses hosts, that the document names.

    Raises:
        ConfigError: This user did not start it here, and does not agree.
    """
    checksum, lines = checksum_of(read_document(path)), words_of(manifest)
    Consent(output, request.trusts).need(checksum, "benchmark or study", str(path), lines)


@contextmanager
def _as_one_error(root: Path, again: str) -> Iterator[None]:
    """Turns an error of the machine, such as a full disk, into one with the next command."""
    try:
        yield
    except OSError as error:
        raise PreflightError(
            f"the benchmark cannot continue: {error.strerror or error}",
            where=str(error.filename or root),
            fix=f"fix that, then: {again}",
        ) from error


ANOTHER_PLACE = "free space or permissions there, or give another place with --out DIR"
"""The fix for a report that cannot be written."""


def write_plotted(
    source: CampaignFiles[ManifestT, CellT, ResultT],
    out: Path | None,
    compare: Callable[[ManifestT, Mapping[CellT, ResultT]], T],
    draw: Callable[[T], Figure],
) -> tuple[T, Path]:
    """Rebuilds figures and plot of a benchmark that has no page, from its files.

    Args:
        source: The benchmark.
        out: Directory for them and for the data to make them again: small files without the runs
            and without paths; None: into the benchmark.
        compare: Makes the figures.
        draw: Makes the plot.

    Returns:
        The figures, and the PNG.

    Raises:
        ConfigError: Nothing to report, a damaged file, or another benchmark is kept there.
        PreflightError: The directory cannot be written.
    """
    from tianji_cli.plotting.figure_style import save

    manifest = source.read_manifest()
    results = source.read_results(manifest)
    check_finished(results, source.root)
    comparison = compare(manifest, results)
    target = type(source)((out or source.root).resolve())
    with writing("the report", target.root, ANOTHER_PLACE):
        if target != source:
            source.keep_at(target, manifest, results)
        make_inside(target.root, target.plots)
        png, _ = save(draw(comparison), target.plots, target.kind.stem)
        write_json(target.comparison, comparison)
    return comparison, png
