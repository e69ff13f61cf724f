"""Runs the cells of a benchmark one after the other; it can resume after an interruption."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import msgspec

from engine.envs.extras import install_command
from engine.errors import ConfigError, PreflightError
from tianji_cli.bench.campaign import Campaign, read_campaign
from tianji_cli.bench.cells import beginning, now_text
from tianji_cli.bench.comparison.results import BenchFiles, BenchManifest, Cell, CellResult
from tianji_cli.bench.comparison.run_cell import Assignment, Seen, run_cell
from tianji_cli.bench.comparison.schedule import make_cells, planned_s
from tianji_cli.bench.comparison.warmup import warm_up
from tianji_cli.bench.compatibility import check_versions
from tianji_cli.bench.machine import load_now
from tianji_cli.bench.systems.base import Installed, Peer, PeerMissingError, PeerOptions
from tianji_cli.bench.systems.venv_peer import options_of
from tianji_cli.bench.tasks.env_check import find_env_problems
from tianji_cli.bench.tasks.suite import Suite
from tianji_cli.bench.tasks.work import ATARI, MINATAR

GAMES = {ATARI: ("ale_py", "atari"), MINATAR: ("minatar", "minatar")}
"""By namespace of the environment: its package, and the extra of TianJi that installs it."""


Bench: TypeAlias = Campaign[BenchFiles, BenchManifest, Cell]


def find_peers(
    peers: Sequence[Peer], options: PeerOptions, *, skip_missing: bool, say: Callable[[str], None]
) -> dict[str, Installed | None]:
    """Finds every system; a missing one is an error, or None with `skip_missing`.

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
        peers: In the order of the tables.
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
        planned_s=planned_s(suite, cells),
        **beginning(),
    )
    return Campaign(BenchFiles(root.resolve()), manifest, cells)


def refusals(suite: Suite, peers: Sequence[Peer]) -> dict[str, dict[str, str]]:
    """Why a peer takes no part in a task, by task and peer: no system is left out silently.

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
            fix="an id that Gymnasium knows, or module:id with the module in the working directory"
            " or beside the suite",
        )


def read_bench(root: Path) -> Bench:
    """Reads an existing benchmark; its finished cells are not run again.

    Raises:
        ConfigError: There is none, a file is damaged, or cells were run on another machine.
    """
    return read_campaign(BenchFiles(root.resolve()))


def with_peers_of_now(bench: Bench, peers: Mapping[str, Peer]) -> Bench:
    """The same benchmark, with the systems of its open cells found again.

    Raises:
        PeerMissingError: One is no longer there.
        ConfigError: One has changed since the benchmark was started.
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
        str(bench.files.root),
    )
    manifest = msgspec.structs.replace(bench.manifest, peers={**bench.manifest.peers, **found})
    return replace(bench, manifest=manifest)


class CellRunner:
    """Runs the cells of a comparison, each system warmed up before its first cell of a task.

    Args:
        bench: From `new_bench` or `read_bench`.
        peers: By name.
        show: Called while a cell runs.
        say: Shows a line about the work before a cell.
    """

    def __init__(
        self,
        bench: Bench,
        peers: Mapping[str, Peer],
        show: Callable[[Cell, Seen], None] = lambda *_: None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._bench = bench
        self._peers = peers
        self._show = show
        self._say = say
        self._warm: set[tuple[str, str]] = set()

    def __call__(self, cell: Cell) -> CellResult:
        """Runs one to its end; see `run_cell`."""
        manifest, peer = self._bench.manifest, self._peers[cell.peer]
        installed = manifest.peers[cell.peer]
        if installed is not None and (cell.task, cell.peer) not in self._warm:
            self._warm.add((cell.task, cell.peer))
            warm_up(cell, manifest.suite.tasks[cell.task], peer, installed, self._say)
        return _run(self._bench, cell, peer, self._show)


def _run(bench: Bench, cell: Cell, peer: Peer, show: Callable[[Cell, Seen], None]) -> CellResult:
    manifest, paths = bench.manifest, bench.files.files(cell)
    installed = manifest.peers[cell.peer]
    if installed is None:
        paths.root.mkdir(parents=True, exist_ok=True)
        return CellResult(
            cell=cell,
            outcome="missing",
            detail=f"{peer.title} is not installed here",
            started_at=now_text(),
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
