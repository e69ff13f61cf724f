"""Runs the cells of a benchmark one after the other, and can go on where it was interrupted."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

import msgspec

from engine.errors import ConfigError, PreflightError
from engine.extras import install_command
from tianji_cli.baselines.base import Installed, Peer, PeerMissingError, PeerOptions
from tianji_cli.baselines.venv_peer import options_of
from tianji_cli.bench.cell_files import write_result
from tianji_cli.bench.conditions import check_versions, code_state
from tianji_cli.bench.env_check import find_env_problems
from tianji_cli.bench.machine import load_now, this_machine
from tianji_cli.bench.rehearse import rehearse
from tianji_cli.bench.results import (
    BenchManifest,
    BenchPaths,
    Cell,
    CellResult,
    read_manifest,
    read_results,
)
from tianji_cli.bench.run_cell import Assignment, Seen, run_cell
from tianji_cli.bench.schedule import make_cells, planned_s
from tianji_cli.bench.suite import Suite
from tianji_cli.bench.undertaking import Undertaking
from tianji_cli.bench.work import ATARI, MINATAR

GAMES = {ATARI: ("ale_py", "atari"), MINATAR: ("minatar", "minatar")}
"""By namespace of the environment: the package, and the extra of TianJi that brings it."""


Bench: TypeAlias = Undertaking[BenchPaths, BenchManifest, Cell]


def find_peers(
    peers: Sequence[Peer], options: PeerOptions, *, skip_missing: bool, say: Callable[[str], None]
) -> dict[str, Installed | None]:
    """Looks for every system; a missing one is an error, or None with `skip_missing`.

    Raises:
        PeerMissingError: One is missing; says what to do.
    """
    found: dict[str, Installed | None] = {}
    for peer in peers:
        try:
            found[peer.name] = peer.prepare(options)
        except PeerMissingError as error:
            if not skip_missing:
                raise
            say(f"missing: {peer.title} ({error})")
            found[peer.name] = None
    return found


def new_bench(
    suite: Suite,
    peers: Sequence[Peer],
    installed: dict[str, Installed | None],
    seeds: Sequence[int],
    root: Path,
) -> Bench:
    """Plans a benchmark; writes nothing yet.

    Args:
        suite: The work.
        peers: In the order of tables.
        installed: From `find_peers`.
        seeds: One block each.
        root: `results/bench-<id>`.

    Raises:
        ConfigError: A task names a peer that cannot do it.
    """
    unable = refusals(suite, peers)
    cells = make_cells(suite, [peer.name for peer in peers], seeds)
    manifest = BenchManifest(
        bench_id=root.name,
        argv=["tianji", *sys.argv[1:]],
        suite=suite,
        peers=installed,
        seeds=list(seeds),
        cells=cells,
        parity={
            name: {peer.name: peer.parity(task) for peer in peers if peer.name in task.peers}
            for name, task in suite.tasks.items()
        },
        unable=unable,
        caveats=[text for peer in peers for text in peer.caveats],
        machine=this_machine(),
        git=code_state(),
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
        planned_s=planned_s(suite, cells),
    )
    return Undertaking(BenchPaths(root.resolve()), manifest, cells)


def refusals(suite: Suite, peers: Sequence[Peer]) -> dict[str, dict[str, str]]:
    """By task and peer: why a peer has no part in it; nobody is left out without a word.

    Raises:
        ConfigError: A task names a peer that cannot do it.
    """
    found: dict[str, dict[str, str]] = {}
    for name, task in suite.tasks.items():
        for peer in peers:
            reason = peer.refusal(task)
            if peer.name in task.peers and reason is not None:
                where = f"tasks.{name}.peers.{peer.name}"
                raise ConfigError(reason, where=where, fix="leave it out of this task")
            if peer.name not in task.peers:
                said = task.without.get(peer.name, "the suite has no task for it")
                found.setdefault(name, {})[peer.name] = reason or f"{peer.title}: {said}"
    return found


def check_games(suite: Suite) -> None:
    """Checks that this interpreter, TianJi's, has the games of the suite.

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
    """Makes each environment that is not of a package of games once.

    Raises:
        ConfigError: One cannot be made; the task is named.
    """
    by_id = {task.env.id: name for name, task in suite.tasks.items()}
    others = [env_id for env_id in by_id if env_id.partition("/")[0] not in GAMES]
    for found in find_env_problems(others) if others else []:
        raise ConfigError(
            found.problem,
            where=f"tasks.{by_id[found.env_id]}.env.id",
            fix="an id that Gymnasium knows, or module:id with the module in the working directory"
            " or beside the suite",
        )


def read_bench(root: Path) -> Bench:
    """A benchmark that was begun; its finished cells are not run again.

    Raises:
        ConfigError: There is none, a file is damaged, or cells were run on another machine.
    """
    paths = BenchPaths(root.resolve())
    manifest = read_manifest(paths)
    done = read_results(paths, manifest)
    return Undertaking(paths, manifest, [cell for cell in manifest.cells if cell not in done])


def with_peers_of_now(bench: Bench, peers: Mapping[str, Peer]) -> Bench:
    """The same benchmark, with the systems of its open cells as they are found again.

    Raises:
        PeerMissingError: One is no longer there.
        ConfigError: One has changed since the benchmark was begun.
    """
    wanted = {cell.peer for cell in bench.open_cells}
    earlier = {
        name: installed
        for name, installed in bench.manifest.peers.items()
        if name in wanted and installed is not None
    }
    found = {name: peers[name].prepare(options_of(one.python)) for name, one in earlier.items()}
    check_versions(
        {name: installed.versions for name, installed in earlier.items()},
        {name: installed.versions for name, installed in found.items()},
        str(bench.paths.root),
    )
    manifest = msgspec.structs.replace(bench.manifest, peers={**bench.manifest.peers, **found})
    return replace(bench, manifest=manifest)


def run_cells(
    bench: Bench,
    peers: dict[str, Peer],
    show: Callable[[Cell, Seen], None],
    finished: Callable[[CellResult], None],
    say: Callable[[str], None] = lambda _: None,
) -> dict[Cell, CellResult]:
    """Runs what is still open, while nobody else does; see `Undertaking`.

    Args:
        bench: From `new_bench` or `read_bench`.
        peers: By name.
        show: Called while a cell runs.
        finished: Called after each.
        say: Shows a line about what is done before a cell.

    Returns:
        The results of these cells.

    Raises:
        KeyboardInterrupt: The user stopped it; the cell under way will be run again.
    """
    results: dict[Cell, CellResult] = {}
    rehearsed: set[tuple[str, str]] = set()
    for cell in bench.open_cells:
        installed = bench.manifest.peers[cell.peer]
        if installed is not None and (cell.task, cell.peer) not in rehearsed:
            rehearsed.add((cell.task, cell.peer))
            task = bench.manifest.suite.tasks[cell.task]
            rehearse(cell, task, peers[cell.peer], installed, say)
        results[cell] = result = _run(bench, cell, peers[cell.peer], show)
        write_result(bench.paths, result)
        finished(result)
    return results


def _run(bench: Bench, cell: Cell, peer: Peer, show: Callable[[Cell, Seen], None]) -> CellResult:
    manifest, paths = bench.manifest, bench.paths.files(cell)
    installed = manifest.peers[cell.peer]
    if installed is None:
        paths.root.mkdir(parents=True, exist_ok=True)
        return CellResult(
            cell=cell,
            outcome="missing",
            detail=f"{peer.title} is not installed here",
            started_at=datetime.now(UTC).isoformat(timespec="seconds"),
            machine_id=manifest.machine.id,
        )
    work = Assignment(
        cell=cell,
        task=manifest.suite.tasks[cell.task],
        peer=peer,
        installed=installed,
        paths=paths,
        machine_id=manifest.machine.id,
        load=load_now(),
    )
    return run_cell(work, lambda seen: show(cell, seen))
