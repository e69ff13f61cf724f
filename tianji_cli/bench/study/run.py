"""Runs a study, each run as a user would start it; it can be resumed."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import msgspec

from engine.config.config_file import read_yaml
from engine.errors import (
    ConfigError,
    HostUnreachableError,
    PreflightError,
    VersionMismatchError,
)
from engine.search_path import MODULES_VARIABLE, module_command, with_own_path
from engine.spec import Scalar
from engine.trace.summary import Summary
from tianji_cli.analysis.run import load_run
from tianji_cli.bench.campaign import Campaign
from tianji_cli.bench.cells import beginning, in_blocks, now_text
from tianji_cli.bench.child import run_child, with_tail
from tianji_cli.bench.crew import StopSwitch
from tianji_cli.bench.machine import Load, load_now
from tianji_cli.bench.places import RunPlace
from tianji_cli.bench.study.compare import returns_of
from tianji_cli.bench.study.records import Outcome, StudyCell, StudyFiles, StudyManifest, StudyRun
from tianji_cli.bench.study.spec import Study
from tianji_cli.config.inventory import Host, Inventory
from tianji_cli.config.inventory_file import as_file
from tianji_cli.config.inventory_schema import Network
from tianji_cli.config.lookup import find_file
from tianji_cli.storage.json_files import write_json
from tianji_cli.storage.masking import masked
from tianji_cli.storage.run_dir import RunPaths
from tianji_cli.storage.safe_files import PRIVATE_MODE, clear, make_inside

GRACE_S = 60.0
"""Seconds beyond its budget that a run may take to launch and to end; then it is interrupted."""
REMOTE_GRACE_S = 180.0
"""The same on hosts that may have to be made ready first."""
PATIENCE_S = 20.0
"""Seconds after which an interrupted run that has not ended is killed."""
ASK_S = 0.5
"""How often it is asked whether a run is to be pruned."""
HOSTS_ARE_LOST = (
    HostUnreachableError.exit_code,
    PreflightError.exit_code,
    VersionMismatchError.exit_code,
)
"""Exit codes of `tianji up` after which no run can take place on the same hosts."""

StudyCampaign: TypeAlias = Campaign[StudyFiles, StudyManifest, StudyCell]


@dataclass(frozen=True)
class Turn:
    """How one run is made.

    Attributes:
        place: Where.
        params: The setting of its trial.
        must_prune: Asked now and then while it runs.
        stop: Once asked, the run ends.
    """

    place: RunPlace = field(default_factory=RunPlace)
    params: Mapping[str, Scalar] = field(default_factory=dict)
    must_prune: Callable[[], bool] = lambda: False
    stop: StopSwitch = field(default_factory=StopSwitch)


class RunWatcher:
    """Ends a run when its time is over, when it is pruned, or when all runs are to end.

    Attributes:
        is_pruned: Whether it was.
    """

    def __init__(self, limit_s: float, turn: Turn) -> None:
        self._limit_s, self._turn = limit_s, turn
        self._asked_s = time.monotonic()
        self.is_pruned = False

    @property
    def grace_s(self) -> float:
        return 0.0 if self._turn.stop.is_urgent else PATIENCE_S

    def must_end(self, since_s: float, exit_code: int | None) -> bool:
        if exit_code is not None:
            return False
        if since_s >= self._limit_s or self._turn.stop.is_asked:
            return True
        if time.monotonic() - self._asked_s >= ASK_S:
            self._asked_s = time.monotonic()
            self.is_pruned = self._turn.must_prune()
        return self.is_pruned


def plan_cells(study: Study) -> list[StudyCell]:
    """All runs in blocks: with each seed every variant of every task, in random order. A search
    runs one trial after the other, each with all seeds."""
    if study.search is not None:
        return _trial_cells(study)
    num_blocks = max(study.seeds_of(task) for task in study.tasks)
    sides = {name: study.variants_of(name) for name in study.tasks}
    return [
        StudyCell(task=task, variant=variant, seed=seed)
        for task, variant, seed in in_blocks(study.name, sides, range(num_blocks))
        if seed < study.seeds_of(task)
    ]


def _trial_cells(study: Study) -> list[StudyCell]:
    names = study.variants_of(next(iter(study.tasks)))
    return [
        StudyCell(task=task, variant=variant, seed=seed)
        for variant in names
        for task in study.tasks
        for seed in range(study.seeds_of(task))
    ]


def new_study(study: Study, root: Path, inventory: Inventory | None = None) -> StudyCampaign:
    """Plans a study in `root`; writes nothing yet."""
    manifest = StudyManifest(
        bench_id=root.name,
        suite=study,
        experiments={
            name: read_yaml(find_file("experiments", task.experiment)).data
            for name, task in study.tasks.items()
        },
        inventory=inventory,
        cells=plan_cells(study),
        **beginning(),
    )
    return Campaign(StudyFiles(root), manifest, manifest.cells)


def command_of(
    manifest: StudyManifest,
    cell: StudyCell,
    paths: StudyFiles,
    params: Mapping[str, Scalar] | None = None,
    *,
    has_inventory: bool = False,
) -> list[str]:
    """The arguments of `tianji` that start one run."""
    study, task = manifest.suite, cell.task
    is_kept = task in manifest.experiments
    experiment = str(paths.experiment(task)) if is_kept else study.tasks[task].experiment
    settings = [
        word
        for setting in study.settings_of(task, cell.variant, params)
        for word in ("-s", setting)
    ]
    return [
        *("-q", "up", *([str(paths.inventory(cell))] if has_inventory else []), "-x", experiment),
        *settings,
        *("--seed", str(cell.seed), "--name", cell.name, "--results", str(paths.runs)),
    ]


def write_experiment(paths: StudyFiles, manifest: StudyManifest, task: str) -> None:
    """Writes the experiment file that `command_of` names, if the manifest has it."""
    if task in manifest.experiments:
        write_json(paths.experiment(task), manifest.experiments[task])


def run_cell(work: StudyCampaign, cell: StudyCell, turn: Turn | None = None) -> StudyRun:
    """Runs one cell to its end, of whatever kind; no process of it is left running.

    Args:
        work: The study.
        cell: Which.
        turn: How; None: on this machine alone.

    Raises:
        HostUnreachableError: No run can take place on its hosts; nothing was concluded.
        KeyboardInterrupt: The user stopped it; the run was ended, and nothing was concluded.
    """
    turn = turn or Turn()
    paths, study, hosts = work.files, work.manifest.suite, turn.place.inventory
    clear(paths.root, paths.cell(cell))  # left by an interrupted attempt
    make_inside(paths.root, paths.runs)
    write_experiment(paths, work.manifest, cell.task)
    output = paths.runs / f"{cell.name}.log"
    output.unlink(missing_ok=True)
    load, started_at = load_now() if turn.place.is_alone_here else None, now_text()
    words = command_of(work.manifest, cell, paths, turn.params, has_inventory=bool(hosts))
    argv = module_command(sys.executable, "tianji_cli.main", *words)
    env = with_own_path(_with_modules_of(study.tasks[cell.task].experiment))
    grace_s = REMOTE_GRACE_S if turn.place.hosts else GRACE_S
    watcher = RunWatcher(study.budget_of(cell.task) + grace_s, turn)
    given = work.manifest.inventory
    with _inventory_at(paths.inventory(cell), hosts, given.network if given else "encrypted"):
        ended = run_child(argv, env, Path.cwd(), output, watcher)
    if turn.stop.is_asked and not ended.is_by_itself:
        raise KeyboardInterrupt
    if turn.place.hosts and ended.exit_code in HOSTS_ARE_LOST:
        raise HostUnreachableError(with_tail("no run can start", output), where=turn.place.name)
    run = RunPaths(paths.cell(cell))
    found = conclude(cell, run, work.manifest.machine.id, load, output)
    if watcher.is_pruned and found.summary is not None and found.summary.status == "interrupted":
        found = msgspec.structs.replace(found, outcome="pruned", detail="below the median")
    return msgspec.structs.replace(
        found,
        started_at=started_at,
        command=argv,
        params=dict(turn.params),
        hosts=[host.name for host in turn.place.hosts],
    )


@contextmanager
def _inventory_at(path: Path, hosts: tuple[Host, ...], network: Network) -> Iterator[None]:
    """A file with these hosts; the values of `env` are there for this user alone, and until the
    run has ended."""
    if not hosts:
        yield
        return
    inventory = Inventory(source=str(path), hosts=hosts, network=network)
    write_json(path, as_file(inventory), PRIVATE_MODE)
    try:
        yield
    finally:
        write_json(path, as_file(masked(inventory)))


def _with_modules_of(experiment: str) -> dict[str, str]:
    """This environment, so that own modules beside the experiment file are found: what runs is a
    copy of it. If the file is gone, as on another machine, they must be elsewhere."""
    env = dict(os.environ)
    try:
        beside = str(find_file("experiments", experiment).absolute().parent)
    except ConfigError:
        return env
    env[MODULES_VARIABLE] = os.pathsep.join(filter(None, (env.get(MODULES_VARIABLE), beside)))
    return env


def conclude(
    cell: StudyCell, run: RunPaths, machine_id: str, load: Load | None, output: Path
) -> StudyRun:
    """Record of a run that has ended; its traces are compared with its summary here."""
    from tianji_cli.analysis.check import rebuild_counters
    from tianji_cli.bench.study.downsample import thin_curve

    try:
        data = load_run(run)
    except ConfigError as error:
        detail = with_tail(str(error), output)
        return StudyRun(
            cell=cell,
            outcome="failed",
            detail=detail,
            disagreements=0,
            machine_id=machine_id,
            load=load,
        )
    outcome, detail = outcome_of(data.summary)
    curve = thin_curve(data)
    return StudyRun(
        cell=cell,
        outcome=outcome,
        detail=detail,
        disagreements=len(rebuild_counters(data)),
        machine_id=machine_id,
        load=load,
        summary=data.summary,
        manifest=data.manifest.data,
        curve=curve,
        returns=returns_of(curve, data.summary),
    )


def outcome_of(summary: Summary | None) -> tuple[Outcome, str]:
    """Outcome of a run, and the reason if it failed."""
    if summary is None:
        return "failed", "it wrote no summary"
    if summary.status != "ok":
        return "failed", summary.error or f"{summary.status} by {summary.stop_reason}"
    if summary.reached is None:
        return "ended", ""
    return ("reached" if summary.reached else "censored"), ""
