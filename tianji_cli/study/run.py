"""Runs a study, one run after the other, each as a user would start it; can go on later."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

from engine.config_file import read_yaml
from engine.errors import ConfigError
from engine.search_path import module_command, with_own_path
from engine.trace.summary import Summary
from tianji_cli.analysis.run import load_run
from tianji_cli.bench.conditions import code_state, own_versions
from tianji_cli.bench.machine import Load, load_now, this_machine
from tianji_cli.bench.schedule import in_blocks
from tianji_cli.bench.supervise import Family
from tianji_cli.bench.undertaking import Undertaking
from tianji_cli.documents import write_json
from tianji_cli.files import find_file
from tianji_cli.run_dir import RunPaths
from tianji_cli.safe_files import clear, make_inside
from tianji_cli.study.records import (
    Outcome,
    StudyCell,
    StudyManifest,
    StudyPaths,
    StudyRun,
    append_run,
    read_runs,
    read_study,
)
from tianji_cli.study.spec import Study

LOOK_S = 0.2
GRACE_S = 60.0
"""A run may take so much longer than its budget to launch and to end; then it is interrupted."""
PATIENCE_S = 20.0
"""An interrupted run that has not ended by then is killed."""


StudyWork: TypeAlias = Undertaking[StudyPaths, StudyManifest, StudyCell]


def plan_cells(study: Study) -> list[StudyCell]:
    """All runs in blocks: with each seed every variant of every task, in random order."""
    num_blocks = max(study.seeds_of(task) for task in study.tasks)
    sides = {name: list(task.variants) for name, task in study.tasks.items()}
    return [
        StudyCell(task=task, variant=variant, seed=seed)
        for task, variant, seed in in_blocks(study.name, sides, range(num_blocks))
        if seed < study.seeds_of(task)
    ]


def new_study(study: Study, root: Path) -> StudyWork:
    """Plans a study in `root`; writes nothing yet."""
    manifest = StudyManifest(
        study_id=root.name,
        argv=["tianji", *sys.argv[1:]],
        study=study,
        experiments={
            name: read_yaml(find_file("experiments", task.experiment)).data
            for name, task in study.tasks.items()
        },
        cells=plan_cells(study),
        machine=this_machine(),
        versions=own_versions(),
        git=code_state(),
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    return Undertaking(StudyPaths(root), manifest, manifest.cells)


def read_work(root: Path) -> StudyWork:
    """A study that was begun; its finished runs are not made again.

    Raises:
        ConfigError: There is none, it is damaged, or runs were made on another machine.
    """
    paths = StudyPaths(root)
    manifest = read_study(paths)
    done = read_runs(paths, manifest)
    return Undertaking(paths, manifest, [cell for cell in manifest.cells if cell not in done])


def run_study(work: StudyWork, finished: Callable[[StudyRun], None]) -> None:
    """Makes the runs that are missing, while nobody else does; see `Undertaking`.

    Args:
        work: From `new_study` or `read_work`.
        finished: Called after each.

    Raises:
        KeyboardInterrupt: The user stopped it; the run under way will be made again.
    """
    for cell in work.open_cells:
        run = _run_cell(work, cell)
        append_run(work.paths, run)
        finished(run)


def command_of(manifest: StudyManifest, cell: StudyCell, paths: StudyPaths) -> list[str]:
    """The words after `tianji` that make one run."""
    study, task = manifest.study, cell.task
    is_kept = task in manifest.experiments
    experiment = str(paths.experiment(task)) if is_kept else study.tasks[task].experiment
    settings = [
        word for setting in study.settings_of(task, cell.variant) for word in ("-s", setting)
    ]
    return [
        *("-q", "up", "-x", experiment),
        *settings,
        *("--seed", str(cell.seed), "--name", cell.run_id, "--results", str(paths.runs)),
    ]


def write_experiment(paths: StudyPaths, manifest: StudyManifest, task: str) -> None:
    """Writes what `command_of` names, if the manifest has it."""
    if task in manifest.experiments:
        write_json(paths.experiment(task), manifest.experiments[task])


def _run_cell(work: StudyWork, cell: StudyCell) -> StudyRun:
    paths, study = work.paths, work.manifest.study
    clear(paths.root, paths.run(cell).root)  # what an interrupted attempt left
    make_inside(paths.root, paths.runs)
    write_experiment(paths, work.manifest, cell.task)
    output = paths.runs / f"{cell.run_id}.log"
    output.unlink(missing_ok=True)
    load = load_now()
    argv = module_command(
        sys.executable, "tianji_cli.main", *command_of(work.manifest, cell, paths)
    )
    family = Family(argv, with_own_path(os.environ), Path.cwd(), output)
    budget_s = study.tasks[cell.task].budget_s or study.budget_s
    try:
        _wait(family, budget_s + GRACE_S)
    finally:
        if family.process.poll() is None:
            family.ask_to_stop()
            _wait(family, PATIENCE_S)
        family.end()
    return conclude(cell, paths.run(cell), work.manifest.machine.id, load, output)


def _wait(family: Family, timeout_s: float) -> None:
    deadline_s = time.monotonic() + timeout_s
    while family.wait(LOOK_S) is None and time.monotonic() < deadline_s:
        family.look()


def conclude(cell: StudyCell, run: RunPaths, machine_id: str, load: Load, output: Path) -> StudyRun:
    """What is kept of a run that has ended; its traces are held against its summary here."""
    from tianji_cli.analysis.check import rebuild_counters
    from tianji_cli.analysis.thin import thin_curve

    try:
        data = load_run(run)
    except ConfigError as error:
        tail = output.read_text(encoding="utf-8", errors="replace").splitlines()[-5:]
        detail = "\n".join((str(error), *tail))
        return StudyRun(
            cell=cell,
            outcome="failed",
            detail=detail,
            disagreements=0,
            machine_id=machine_id,
            load=load,
        )
    outcome, detail = outcome_of(data.summary)
    return StudyRun(
        cell=cell,
        outcome=outcome,
        detail=detail,
        disagreements=len(rebuild_counters(data)),
        machine_id=machine_id,
        load=load,
        summary=data.summary,
        manifest=data.manifest.data,
        curve=thin_curve(data),
    )


def outcome_of(summary: Summary | None) -> tuple[Outcome, str]:
    """What became of a run, and why if it failed."""
    if summary is None:
        return "failed", "it wrote no summary"
    if summary.status != "ok":
        return "failed", summary.error or f"{summary.status} by {summary.stop_reason}"
    if summary.reached is None:
        return "ended", ""
    return ("reached" if summary.reached else "censored"), ""
