"""The request of `tianji bench`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from engine.config.config_file import suggest
from engine.errors import ConfigError
from engine.spec import MAX_FLOAT
from tianji_cli.bench.kinds import KindInfo, kinds_at
from tianji_cli.bench.places import MAX_PARALLEL, Parallel
from tianji_cli.bench.systems.base import SystemOptions
from tianji_cli.storage.run_dir import check_run_id

if TYPE_CHECKING:
    pass

T = TypeVar("T")


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
    parallel: str | None = None

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
            "--parallel": self.parallel is not None,
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

    def checked_parallel(self) -> Parallel | None:
        """The value of `--parallel`; None if it is not given.

        Raises:
            ConfigError: It is neither `auto` nor a number of runs.
        """
        if self.parallel is None or self.parallel == "auto":
            return self.parallel  # type: ignore[return-value]  # mypy does not narrow to the word
        if not self.parallel.isdecimal() or not 1 <= int(self.parallel) <= MAX_PARALLEL:
            raise ConfigError(
                f"{self.parallel!r} is not a number of runs",
                where="--parallel",
                fix=f"auto, or 1 to {MAX_PARALLEL}",
            )
        return int(self.parallel)

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
