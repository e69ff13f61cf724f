"""The request of `tianji bench`, and the steps that all kinds have in common.

Comparisons, studies, scaling and transport each plan their work; the common steps ask, run and
report.
"""

from __future__ import annotations

import shlex
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeAlias, TypeVar

import typer

from engine.config.config_file import suggest
from engine.errors import EXIT_INCOMPLETE, EXIT_INTERRUPTED, ConfigError, PreflightError
from engine.spec import MAX_FLOAT
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
from tianji_cli.bench.kinds import KindInfo, kinds_at
from tianji_cli.bench.machine import MAX_BUSY_CORES, this_machine
from tianji_cli.bench.systems.base import SystemOptions
from tianji_cli.output import Output
from tianji_cli.render.bench.bench_live import BenchDisplay
from tianji_cli.storage.consent import Consent, words_of
from tianji_cli.storage.json_files import create_result_dir, read_document, write_json, writing
from tianji_cli.storage.ownership import checksum_of
from tianji_cli.storage.run_dir import check_run_id, probe_results
from tianji_cli.storage.safe_files import make_inside

if TYPE_CHECKING:
    from tianji_cli.plotting.figures import Figure

T = TypeVar("T")

ANOTHER_PLACE = "free space or permissions there, or give another place with --out DIR"
"""The fix for a report that cannot be written."""

DEFAULT_BASELINES = "single-process"
"""Default of `--compare`."""


@dataclass(frozen=True)
class BenchRequest:
    """The user's request; see `tianji bench --help`."""

    suite: str
    inventory: str | None
    compare: str
    tasks: Sequence[str]
    seeds: int | None
    budget_s: float | None
    settings: Sequence[str]
    results: Path
    name: str | None
    resume: str | None
    system_options: SystemOptions
    yes: bool
    dry_run: bool
    skip_missing: bool
    strict: bool
    trusts: bool = False

    @property
    def given(self) -> dict[str, bool]:
        """Whether the user gave each option that defines the work."""
        return {
            "--hosts": self.inventory is not None,
            "--compare": self.compare != DEFAULT_BASELINES,
            "--task": bool(self.tasks),
            "--seeds": self.seeds is not None,
            "--budget": self.budget_s is not None,
            "-s": bool(self.settings),
            "--name": self.name is not None,
            "--skip-missing": self.skip_missing,
        }

    def refuse(self, unused: Mapping[str, str], instead: str = "use another suite") -> None:
        """Refuses options that a kind of suite does not use.

        Args:
            unused: By option, the reason.
            instead: The alternative.

        Raises:
            ConfigError: One of them was given.
        """
        for option, reason in unused.items():
            if self.given[option]:
                raise ConfigError(reason, where=option, fix=f"leave it out, or {instead}")

    def checked_budget_s(self) -> float | None:
        """The value of `--budget`.

        Raises:
            ConfigError: It is not above 0, or not a number that a manifest can store.
        """
        if self.budget_s is not None and not 0 < self.budget_s <= MAX_FLOAT:
            what = f"{self.budget_s:g} is not a time"
            raise ConfigError(what, where="--budget", fix="seconds, above 0")
        return self.budget_s

    def new_id(self, kind: str, suite: str) -> str:
        """`--name`, or one that sorts by time: `bench-20260131-235959-smoke`.

        Raises:
            ConfigError: It cannot name a directory.
        """
        made = f"{kind}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{suite}"
        return check_run_id(self.name or made, "--name")

    def resumed(self) -> tuple[KindInfo, Path]:
        """The directory that `--resume` names: a path if it exists, else a benchmark's id.

        Raises:
            ConfigError: There is no benchmark.
        """
        name = Path(self.resume or "")
        for place in (name, self.results / name):
            for kind in kinds_at(place):
                return kind, place
        raise ConfigError(
            "there is no benchmark or study to resume",
            where=str(self.results / name),
            fix="give --resume ID, and --results DIR if it is elsewhere",
        )


def chosen(tasks: Mapping[str, T], names: Sequence[str]) -> dict[str, T]:
    """The tasks that `--task` names; all of them if it names none.

    Raises:
        ConfigError: There is no such task.
    """
    for name in names:
        if name not in tasks:
            what = f"the suite has no task {name!r}"
            raise ConfigError(what, where="--task", fix=suggest(name, tasks))
    return {name: task for name, task in tasks.items() if name in names or not names}


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
