"""What `tianji bench` was asked for, and the course that all kinds of it take.

Comparisons, studies, scaling and transport each say what will be done; then one asks, does it and
reports it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec
import typer

from engine.config_file import suggest
from engine.errors import EXIT_INCOMPLETE, EXIT_INTERRUPTED, ConfigError
from engine.spec import MAX_FLOAT
from tianji_cli.baselines.base import PeerOptions
from tianji_cli.bench.conditions import check_code, code_state, note_on_code
from tianji_cli.bench.exclusive import exclusively
from tianji_cli.manifest import GitState
from tianji_cli.output import Output
from tianji_cli.run_dir import probe_results

T = TypeVar("T")

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

    def refuse(self, unused: Mapping[str, str]) -> None:
        """Refuses options that a kind of suite makes no use of.

        Args:
            unused: By option, why not.

        Raises:
            ConfigError: One of them was given.
        """
        given = {
            "--hosts": self.inventory is not None,
            "--compare": self.compare != DEFAULT_PEERS,
            "--task": bool(self.tasks),
            "--budget": self.budget_s is not None,
            "--skip-missing": self.skip_missing,
        }
        for option, reason in unused.items():
            if given[option]:
                raise ConfigError(reason, where=option, fix="leave it out, or take another suite")

    def checked_budget_s(self) -> float | None:
        """Of `--budget`.

        Raises:
            ConfigError: It is not above 0, or no number that a manifest can hold.
        """
        if self.budget_s is not None and not 0 < self.budget_s <= MAX_FLOAT:
            what = f"{self.budget_s:g} is not a time"
            raise ConfigError(what, where="--budget", fix="seconds, above 0")
        return self.budget_s

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
class Undertaking:
    """A benchmark or study that may start or go on.

    Attributes:
        name: Its id.
        root: Its directory.
        manifest: What it is, as its directory says.
        git: The code that it was begun with.
        num_open: Cells that are still to be done.
        create: Makes its directory; called unless it goes on.
        run: Does the open cells.
        report: Says what was found, and returns whether nothing is missing, censored or failed.
    """

    name: str
    root: Path
    manifest: msgspec.Struct
    git: GitState
    num_open: int
    create: Callable[[], None]
    run: Callable[[], None]
    report: Callable[[], bool]


def conduct(undertaking: Undertaking, request: BenchRequest, output: Output) -> int:
    """Asks, runs, reports; with `--dry-run`, nothing of it.

    Returns:
        0; 8 with `--strict` and something missing, censored or failed; 130 if interrupted.

    Raises:
        ConfigError: It was begun by other code, or another command is running it.
    """
    goes_on = request.resume is not None
    if goes_on and undertaking.num_open > 0:
        _check_code(undertaking, output)
    if request.dry_run:
        if output.is_json:
            output.document(undertaking.manifest)
        return 0
    with ExitStack() as held:
        if goes_on:  # before asking: what is open must still be open when the answer comes
            held.enter_context(exclusively(undertaking.root))
        is_asked = undertaking.num_open > 0 and not request.yes
        if is_asked and not typer.confirm("Start?", default=True, err=True):
            return EXIT_INTERRUPTED
        if not goes_on:
            probe_results(request.results)
            undertaking.create()
            held.enter_context(exclusively(undertaking.root))
        try:
            undertaking.run()
        except KeyboardInterrupt:
            again = f"tianji bench --resume {undertaking.name} --results {request.results}"
            output.say(f"interrupted; go on with: {again}")
            return EXIT_INTERRUPTED
    is_complete = undertaking.report()
    return EXIT_INCOMPLETE if request.strict and not is_complete else 0


def _check_code(undertaking: Undertaking, output: Output) -> None:
    here = code_state()
    check_code(undertaking.git, here, str(undertaking.root))
    if note := note_on_code(undertaking.git, here):
        output.say(note)
