"""Interface of a system that can be benchmarked. Nothing here starts a process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, Protocol, TypeAlias

import msgspec

from engine.errors import PreflightError
from engine.host.account import cache_directory
from engine.trace.records import Record
from tianji_cli.bench.systems.convert import to_trace
from tianji_cli.bench.systems.raw import Feed, RawFeed, RawRecord
from tianji_cli.bench.tasks.suite import Task, scalar_rows

DRIVERS = Path(__file__).resolve().parent / "drivers"
MatchKind = Literal["equal", "different", "not settable"]
Deviations: TypeAlias = Mapping[str, tuple[MatchKind, str]]
"""How each setting is met, with a note, by setting."""


class SystemMissingError(PreflightError):
    """A requested system is not installed here; the fix says how to install it."""


@dataclass(frozen=True)
class SystemOptions:
    """Where baselines are installed.

    Attributes:
        systems_dir: Virtual environments made by `--install`.
        xingtian_python: The interpreter of the user's own XingTian.
        other_tianji: The interpreter of another installation of TianJi.
    """

    systems_dir: Path
    xingtian_python: Path | None = None
    other_tianji: Path | None = None


class Installed(msgspec.Struct, frozen=True, kw_only=True):
    """A system that is ready to run."""

    python: str
    """Interpreter."""
    versions: dict[str, str]


class ParityRow(msgspec.Struct, frozen=True, kw_only=True):
    """One setting: what the task requires and what this system does."""

    setting: str
    wanted: str
    match: MatchKind
    note: str = ""


class Job(msgspec.Struct, frozen=True, kw_only=True, rename={"system": "peer"}):
    """`job.json`: all inputs of a driver."""

    system: str
    task_name: str
    task: Task
    """With this system's overrides applied."""
    seed: int
    scratch: str
    """A short path: sockets below it must stay under 108 characters."""


@dataclass(frozen=True)
class CellPaths:
    """The files of one cell: one system, one task, one seed.

    Args:
        root: `results/bench-<id>/cells/<task>/<system>-seed<n>`.
    """

    root: Path

    @property
    def job(self) -> Path:
        return self.root / "job.json"

    @property
    def raw(self) -> Path:
        """Records of the driver."""
        return self.root / "raw"

    @property
    def output(self) -> Path:
        """Standard output and error of the system."""
        return self.root / "output.log"

    @property
    def trace(self) -> Path:
        return self.root / "trace"

    @property
    def result(self) -> Path:
        """Written last: a cell without it is not finished."""
        return self.root / "cell.json"


@dataclass(frozen=True)
class Command:
    """How to start a system.

    Attributes:
        argv: Program and arguments.
        env: Added to the environment.
        unset: Removed from the environment.
        ok_codes: Exit codes of a clean end after SIGINT.
    """

    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    unset: Sequence[str] = ()
    ok_codes: Sequence[int] = (0,)


class System(Protocol):
    """One system."""

    @property
    def name(self) -> str: ...

    @property
    def title(self) -> str: ...

    @property
    def caveats(self) -> Sequence[str]: ...

    def prepare(self, options: SystemOptions, tasks: Sequence[Task] = ()) -> Installed:
        """Finds the system and checks that its packages can be imported.

        Args:
            options: Where to look.
            tasks: What it is to run; some need packages that others do not.

        Raises:
            SystemMissingError: It is not installed; the fix gives the command.
        """
        ...

    def refusal(self, task: Task) -> str | None:
        """Why it cannot do the task at all; None if it can."""
        ...

    def parity(self, task: Task) -> list[ParityRow]:
        """How each setting of the task (as in the suite, without overrides) is met."""
        ...

    def rehearsal(self, job: Job, scratch: Path, installed: Installed) -> Command | None:
        """What is to be done once, before the first cell of a task, as installing is; each line of
        its output is shown. None if nothing is."""
        ...

    def command(self, job: Job, paths: CellPaths, installed: Installed) -> Command:
        """Writes the files the system needs into the cell, and returns how to start it."""
        ...

    def feed(self, paths: CellPaths) -> Feed:
        """Follows what it reports."""
        ...

    def trace(
        self, records: Sequence[RawRecord], paths: CellPaths, launched_s: float
    ) -> list[Record]:
        """The records as rows of trace tables, the same for every system.

        Args:
            records: All records of its feed.
            paths: Of the cell.
            launched_s: CLOCK_MONOTONIC at launch; `t_s` of the rows counts from there.
        """
        ...


class AnySystem:
    """The parts that are the same for all systems."""

    name: str
    title: str
    caveats: Sequence[str] = ()

    def refusal(self, task: Task) -> str | None:
        """Why this system cannot do the task at all; None if it can."""
        return None

    def deviations(self, task: Task) -> Deviations:
        """Settings of the task that this system does not meet exactly."""
        return {}

    def rehearsal(self, job: Job, scratch: Path, installed: Installed) -> Command | None:
        """Nothing."""
        return None

    def parity(self, task: Task) -> list[ParityRow]:
        return parity_rows(task, self.name, self.deviations(task))


class DriverSystem(AnySystem):
    """A system whose driver is a file of TianJi that runs in its interpreter."""

    drivers: ClassVar[Mapping[str, str]]
    """By algorithm; it lacks those that are not named."""

    def refusal(self, task: Task) -> str | None:
        if task.algorithm_name in self.drivers:
            return None
        return f"{self.title} has no {task.algorithm_name.upper()}"

    def command(self, job: Job, paths: CellPaths, installed: Installed) -> Command:
        argv = [
            installed.python,
            "-u",
            str(DRIVERS / self.drivers[job.task.algorithm_name]),
            str(paths.job),
        ]
        return Command(argv, env={"PYTHONPATH": str(DRIVERS), **THREADS}, unset=("VIRTUAL_ENV",))

    def feed(self, paths: CellPaths) -> Feed:
        return RawFeed(paths.raw)

    def trace(
        self, records: Sequence[RawRecord], paths: CellPaths, launched_s: float
    ) -> list[Record]:
        return to_trace(records, launched_s)


THREADS = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""One compute thread per process: with small networks more only wait for each other."""


def parity_rows(task: Task, system: str, deviations: Deviations) -> list[ParityRow]:
    """The parity table of one system: equal unless a deviation is given.

    Args:
        task: As written.
        system: Its overrides count as different.
        deviations: By setting; an equal one is only a remark.
    """
    resolved = scalar_rows(task.of(system))
    rows = []
    for name, wanted in scalar_rows(task).items():
        match, note = deviations.get(name, ("equal", ""))
        if name not in deviations and resolved[name] != wanted:
            match, note = "different", f"{resolved[name]}"
        rows.append(ParityRow(setting=name, wanted=f"{wanted}", match=match, note=note))
    return rows


def initial_weights(task: Task, own: str, words: str) -> Deviations:
    """The row of a system whose initial weights cannot be chosen.

    Args:
        task: What is wanted.
        own: Its `initialization`, or another word.
        words: Which they are.
    """
    if task.network.name != "mlp" or task.network.initialization == own:
        return {}
    return {"network": ("different", f"initial weights are {words}")}


def default_systems_dir() -> Path:
    """`$XDG_CACHE_HOME/tianji/peers`, by default below `~/.cache`."""
    return cache_directory() / "peers"
