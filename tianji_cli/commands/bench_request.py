"""What `tianji bench` was asked for, and the course that all kinds of it take.

Comparisons, studies, scaling and transport each say what will be done; then one asks, does it and
reports it.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import typer

from engine.config_file import suggest
from engine.errors import EXIT_INCOMPLETE, EXIT_INTERRUPTED, ConfigError, PreflightError
from engine.spec import MAX_FLOAT
from tianji_cli.baselines.base import PeerOptions
from tianji_cli.bench.conditions import check_code, check_machine, code_state, note_on_code
from tianji_cli.bench.exclusive import exclusively
from tianji_cli.bench.machine import this_machine
from tianji_cli.bench.undertaking import AnyFiles, AnyManifest
from tianji_cli.consent import Consent, words_of
from tianji_cli.documents import begin, read_document
from tianji_cli.output import Output
from tianji_cli.ownership import checksum_of
from tianji_cli.run_dir import check_run_id, probe_results

T = TypeVar("T")


class AnyWork(Protocol):
    """An `Undertaking`, whatever its cells are."""

    @property
    def paths(self) -> AnyFiles: ...

    @property
    def manifest(self) -> AnyManifest: ...

    @property
    def open_cells(self) -> Sequence[object]: ...


WorkT = TypeVar("WorkT", bound=AnyWork)

DEFAULT_PEERS = "single-process"
"""What `--compare` is when it was not given."""


@dataclass(frozen=True)
class BenchRequest:
    """What the user asked for; see `tianji bench --help`."""

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
    peer_options: PeerOptions
    yes: bool
    dry_run: bool
    skip_missing: bool
    strict: bool
    trusts: bool = False

    @property
    def given(self) -> dict[str, bool]:
        """By option that says what is to be done: whether the user gave it."""
        return {
            "--hosts": self.inventory is not None,
            "--compare": self.compare != DEFAULT_PEERS,
            "--task": bool(self.tasks),
            "--seeds": self.seeds is not None,
            "--budget": self.budget_s is not None,
            "-s": bool(self.settings),
            "--name": self.name is not None,
            "--skip-missing": self.skip_missing,
        }

    def refuse(self, unused: Mapping[str, str], instead: str = "use another suite") -> None:
        """Refuses options that a kind of suite makes no use of.

        Args:
            unused: By option, why not.
            instead: What else is to be done for them.

        Raises:
            ConfigError: One of them was given.
        """
        for option, reason in unused.items():
            if self.given[option]:
                raise ConfigError(reason, where=option, fix=f"leave it out, or {instead}")

    def checked_budget_s(self) -> float | None:
        """Of `--budget`.

        Raises:
            ConfigError: It is not above 0, or no number that a manifest can hold.
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

    def wants(self, is_one: Callable[[Path], bool], is_suite: Callable[[str], bool]) -> bool:
        """Whether what is to be run, or to go on, is of this kind.

        Args:
            is_one: Whether a directory holds one.
            is_suite: Whether a suite, by name or path, describes one.
        """
        if self.resume is None:
            return is_suite(self.suite)
        return is_one(self.resumed_root(is_one))

    def resumed_root(self, is_one: Callable[[Path], bool]) -> Path:
        """The directory that `--resume` means: a path if there is something, else a name."""
        place = Path(self.resume or "")
        return place if is_one(place) else self.results / place


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


@dataclass(frozen=True)
class Kind(Generic[WorkT]):
    """What one kind of undertaking does in the course that is common to all.

    Attributes:
        is_one: Whether a directory holds one.
        plan: Thinks one up; writes nothing yet.
        read: Reads one that was begun.
        renew: The same with what its open cells need as it is now; raises if that has changed.
        announce: Says what will be done and how long it takes, before anything starts.
        run: Does the open cells.
        report: Says what was found, and returns whether nothing is missing, censored or failed.
    """

    is_one: Callable[[Path], bool]
    plan: Callable[[BenchRequest, Output], WorkT]
    read: Callable[[Path], WorkT]
    renew: Callable[[WorkT], WorkT]
    announce: Callable[[WorkT, Output], None]
    run: Callable[[WorkT, Output], None]
    report: Callable[[WorkT, Output], bool]


def conduct(kind: Kind[WorkT], request: BenchRequest, output: Output) -> int:
    """Plans or reads it, asks, runs, reports; with `--dry-run`, it only says what would be done.

    Returns:
        0; 8 with `--strict` and something missing, censored or failed; 130 if interrupted.

    Raises:
        ConfigError: It was begun under other conditions, or another command is running it.
        TianJiError: Nothing could be started, or it cannot go on; says why.
    """
    with ExitStack() as held:
        if request.resume is None:
            work = kind.plan(request, output)
        else:
            work = _resumed(kind, request, output, held)
        kind.announce(work, output)
        if request.dry_run:
            if output.is_json:
                output.document(work.manifest)
            return 0
        is_asked = len(work.open_cells) > 0 and not request.yes
        if is_asked and not typer.confirm("Start?", default=True, err=True):
            return EXIT_INTERRUPTED
        if request.resume is None:
            probe_results(request.results)
            begin(work.paths.manifest, work.manifest)
            held.enter_context(exclusively(work.paths.root))
        where = request.resume or work.paths.root.name, "--results", str(request.results)
        again = shlex.join(("tianji", "bench", "--resume", *where))
        try:
            with _as_one_error(work.paths.root, again):
                kind.run(work, output)
        except KeyboardInterrupt:
            output.say(f"interrupted; to resume: {again}")
            return EXIT_INTERRUPTED
    is_complete = kind.report(work, output)
    return EXIT_INCOMPLETE if request.strict and not is_complete else 0


@contextmanager
def _as_one_error(root: Path, again: str) -> Iterator[None]:
    """What a machine refuses, such as a full disk, ends it; the cell under way is run again."""
    try:
        yield
    except OSError as error:
        raise PreflightError(
            f"the benchmark cannot continue: {error.strerror or error}",
            where=str(error.filename or root),
            fix=f"fix that, then: {again}",
        ) from error


def _agree(work: AnyWork, request: BenchRequest, output: Output) -> None:
    """Going on runs commands, and uses hosts, that the document names.

    Raises:
        ConfigError: It was not begun here by this user, who does not agree to it.
    """
    path = work.paths.manifest
    checksum, lines = checksum_of(read_document(path)), words_of(work.manifest)
    Consent(output, request.trusts).need(checksum, "benchmark or study", str(path), lines)


def _resumed(kind: Kind[WorkT], request: BenchRequest, output: Output, held: ExitStack) -> WorkT:
    """What was begun, if it may go on here and now; what is open then stays open while `held`."""
    root = request.resumed_root(kind.is_one)
    if not kind.is_one(root):
        what = "there is no benchmark or study to resume"
        raise ConfigError(
            what, where=str(root), fix="give --resume ID, and --results DIR if it is elsewhere"
        )
    if not request.dry_run:
        held.enter_context(exclusively(root))
    work = kind.read(root)
    if work.open_cells:
        _agree(work, request, output)
    check_machine(work.manifest.machine, this_machine(), str(root))
    if not work.open_cells:
        return work
    earlier, here = work.manifest.git, code_state()
    check_code(earlier, here, str(root))
    if note := note_on_code(earlier, here):
        output.say(note)
    return kind.renew(work)
