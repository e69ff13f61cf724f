"""Runs the cells of a benchmark one after the other; it can resume after an interruption."""

from __future__ import annotations

import importlib.util
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import msgspec

from engine.envs.extras import install_command
from engine.envs.names import extra_of
from engine.errors import ConfigError, PreflightError
from tianji_cli.bench.campaign import Campaign, read_campaign
from tianji_cli.bench.cells import beginning, now_text
from tianji_cli.bench.comparison.results import (
    BenchFiles,
    BenchManifest,
    Cell,
    CellResult,
    make_cells,
    planned_s,
)
from tianji_cli.bench.comparison.run_cell import Assignment, Seen, run_cell
from tianji_cli.bench.compatibility import check_versions
from tianji_cli.bench.machine import load_now
from tianji_cli.bench.process_tree import clean_environment, modules_environment
from tianji_cli.bench.systems.base import Installed, System, SystemMissingError, SystemOptions
from tianji_cli.bench.systems.probe import options_of
from tianji_cli.bench.tasks.env_check import find_env_problems
from tianji_cli.bench.tasks.suite import Suite, Task
from tianji_cli.bench.tasks.work import ATARI, MINATAR


def warm_up(
    cell: Cell, task: Task, system: System, installed: Installed, say: Callable[[str], None]
) -> None:
    """Does what a system needs once, before its first cell of a task; it is part of no figure.

    What it says is shown. If it fails, its last line is shown and the cell runs all the same.

    Args:
        cell: The first of its task and system.
        task: As written.
        system, installed: The system.
        say: Shows one line.
    """
    with tempfile.TemporaryDirectory(prefix="tjb-") as name:
        scratch = Path(name)
        command = system.rehearsal(cell.job(task.of(cell.system), scratch), scratch, installed)
        if command is None:
            return
        done = subprocess.run(
            list(command.argv),
            env={
                **clean_environment(command.unset),
                **modules_environment(),
                **command.env,
            },
            cwd=scratch,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
    lines = done.stdout.splitlines()
    if done.returncode:
        lines += done.stderr.splitlines()[-1:] or [f"ended with code {done.returncode}"]
    for line in lines:
        say(f"  {system.title}, {cell.task}: {line}")


GAMES = {ATARI: ("ale_py", "atari"), MINATAR: ("minatar", "minatar")}
"""By namespace of the environment: its package, and the extra of TianJi that installs it."""


Bench: TypeAlias = Campaign[BenchFiles, BenchManifest, Cell]


def find_systems(
    systems: Sequence[System],
    options: SystemOptions,
    suite: Suite,
    *,
    skip_missing: bool,
    say: Callable[[str], None],
) -> dict[str, Installed | None]:
    """Finds every system; a missing one is an error, or None with `skip_missing`.

    Raises:
        SystemMissingError: One is missing; says what to do.
    """
    found: dict[str, Installed | None] = {}
    for system in systems:
        try:
            found[system.name] = system.prepare(options, suite.tasks_of(system.name))
        except SystemMissingError as error:
            if not skip_missing:
                raise
            say(f"missing: {system.title} ({error})")
            found[system.name] = None
    return found


def new_bench(
    suite: Suite,
    systems: Sequence[System],
    installed: dict[str, Installed | None],
    seeds: Sequence[int],
    root: Path,
) -> Bench:
    """Plans a benchmark; writes nothing yet.

    Args:
        suite: The work.
        systems: In the order of the tables.
        installed: From `find_systems`.
        seeds: One block each.
        root: `results/bench-<id>`.

    Raises:
        ConfigError: A task names a system that cannot do it.
    """
    unable = refusals(suite, systems)
    cells = make_cells(suite, [system.name for system in systems], seeds)
    manifest = BenchManifest(
        bench_id=root.name,
        suite=suite,
        systems=installed,
        seeds=list(seeds),
        cells=cells,
        parity={
            name: {
                system.name: system.parity(task)
                for system in systems
                if system.name in task.systems
            }
            for name, task in suite.tasks.items()
        },
        unable=unable,
        caveats=[text for system in systems for text in system.caveats],
        planned_s=planned_s(suite, cells),
        **beginning(),
    )
    return Campaign(BenchFiles(root.resolve()), manifest, cells)


def refusals(suite: Suite, systems: Sequence[System]) -> dict[str, dict[str, str]]:
    """Why a system takes no part in a task, by task and system: no system is left out silently.

    Raises:
        ConfigError: A task names a system that cannot do it.
    """
    found: dict[str, dict[str, str]] = {}
    for name, task in suite.tasks.items():
        for system in systems:
            reason = system.refusal(task)
            if system.name in task.systems and reason is not None:
                where = f"tasks.{name}.peers.{system.name}"
                raise ConfigError(reason, where=where, fix="leave it out of this task")
            if system.name not in task.systems:
                said = task.without.get(system.name, "the suite has no task for it")
                found.setdefault(name, {})[system.name] = reason or f"{system.title}: {said}"
    return found


def check_games(suite: Suite) -> None:
    """Checks that TianJi's interpreter, this one, has the games of the suite.

    Raises:
        PreflightError: A package is missing; says how to get it.
    """
    for name, task in suite.tasks.items():
        package, extra = GAMES.get(task.env.namespace, ("", ""))
        if package and importlib.util.find_spec(package) is None:
            raise PreflightError(
                f"{task.env.id} needs the package {package.replace('_', '-')}",
                where=f"tasks.{name}.env.id",
                fix=install_command(extra, package.replace("_", "-")),
            )


def check_environments(suite: Suite) -> None:
    """Creates each environment that is not from a package of games once.

    Raises:
        ConfigError: One cannot be made; the task is named.
    """
    by_id = {task.env.id: name for name, task in suite.tasks.items()}
    others = [env_id for env_id in by_id if env_id.partition("/")[0] not in GAMES]
    for found in find_env_problems(others) if others else []:
        raise ConfigError(
            found.problem,
            where=f"tasks.{by_id[found.env_id]}.env.id",
            fix=extra_of(found.problem)
            or "an id that Gymnasium knows, or module:id with the module in the working directory"
            " or beside the suite",
        )


def read_bench(root: Path) -> Bench:
    """Reads an existing benchmark; its finished cells are not run again.

    Raises:
        ConfigError: There is none, a file is damaged, or cells were run on another machine.
    """
    return read_campaign(BenchFiles(root.resolve()))


def with_systems_of_now(bench: Bench, systems: Mapping[str, System]) -> Bench:
    """The same benchmark, with the systems of its open cells found again.

    Raises:
        SystemMissingError: One is no longer there.
        ConfigError: One has changed since the benchmark was started.
    """
    wanted = {cell.system for cell in bench.open_cells}
    earlier = {
        name: installed
        for name, installed in bench.manifest.systems.items()
        if name in wanted and installed is not None
    }
    suite = bench.manifest.suite
    found = {
        name: systems[name].prepare(options_of(one.python), suite.tasks_of(name))
        for name, one in earlier.items()
    }
    check_versions(
        {name: installed.versions for name, installed in earlier.items()},
        {name: installed.versions for name, installed in found.items()},
        str(bench.files.root),
    )
    manifest = msgspec.structs.replace(bench.manifest, systems={**bench.manifest.systems, **found})
    return replace(bench, manifest=manifest)


class CellRunner:
    """Runs the cells of a comparison, each system warmed up before its first cell of a task.

    Args:
        bench: From `new_bench` or `read_bench`.
        systems: By name.
        show: Called while a cell runs.
        say: Shows a line about the work before a cell.
    """

    def __init__(
        self,
        bench: Bench,
        systems: Mapping[str, System],
        show: Callable[[Cell, Seen], None] = lambda *_: None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._bench = bench
        self._systems = systems
        self._show = show
        self._say = say
        self._warm: set[tuple[str, str]] = set()

    def __call__(self, cell: Cell) -> CellResult:
        """Runs one to its end; see `run_cell`."""
        manifest, system = self._bench.manifest, self._systems[cell.system]
        installed = manifest.systems[cell.system]
        if installed is not None and (cell.task, cell.system) not in self._warm:
            self._warm.add((cell.task, cell.system))
            warm_up(cell, manifest.suite.tasks[cell.task], system, installed, self._say)
        return _run(self._bench, cell, system, self._show)


def _run(
    bench: Bench, cell: Cell, system: System, show: Callable[[Cell, Seen], None]
) -> CellResult:
    manifest, paths = bench.manifest, bench.files.files(cell)
    installed = manifest.systems[cell.system]
    if installed is None:
        paths.root.mkdir(parents=True, exist_ok=True)
        return CellResult(
            cell=cell,
            outcome="missing",
            detail=f"{system.title} is not installed here",
            started_at=now_text(),
            machine_id=manifest.machine.id,
        )
    work = Assignment(
        cell=cell,
        task=manifest.suite.tasks[cell.task],
        system=system,
        installed=installed,
        paths=paths,
        machine_id=manifest.machine.id,
        load=load_now(),
    )
    return run_cell(work, lambda seen: show(cell, seen))
