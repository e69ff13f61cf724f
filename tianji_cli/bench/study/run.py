"""Runs a study, one run after the other, each as a user would start it; it can be resumed."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TypeAlias

import msgspec

from engine.config.config_file import read_yaml
from engine.errors import ConfigError
from engine.search_path import MODULES_VARIABLE, module_command, with_own_path
from engine.trace.summary import Summary
from tianji_cli.analysis.run import load_run
from tianji_cli.bench.campaign import Campaign
from tianji_cli.bench.cells import beginning, in_blocks, now_text
from tianji_cli.bench.child import TimeLimit, run_child, with_tail
from tianji_cli.bench.machine import Load, load_now
from tianji_cli.bench.study.records import Outcome, StudyCell, StudyFiles, StudyManifest, StudyRun
from tianji_cli.bench.study.spec import Study
from tianji_cli.config.lookup import find_file
from tianji_cli.storage.json_files import write_json
from tianji_cli.storage.run_dir import RunPaths
from tianji_cli.storage.safe_files import clear, make_inside

GRACE_S = 60.0
"""Seconds beyond its budget that a run may take to launch and to end; then it is interrupted."""
PATIENCE_S = 20.0
"""Seconds after which an interrupted run that has not ended is killed."""


StudyCampaign: TypeAlias = Campaign[StudyFiles, StudyManifest, StudyCell]


def plan_cells(study: Study) -> list[StudyCell]:
    """All runs in blocks: with each seed every variant of every task, in random order."""
    num_blocks = max(study.seeds_of(task) for task in study.tasks)
    sides = {name: list(task.variants) for name, task in study.tasks.items()}
    return [
        StudyCell(task=task, variant=variant, seed=seed)
        for task, variant, seed in in_blocks(study.name, sides, range(num_blocks))
        if seed < study.seeds_of(task)
    ]


def new_study(study: Study, root: Path) -> StudyCampaign:
    """Plans a study in `root`; writes nothing yet."""
    manifest = StudyManifest(
        bench_id=root.name,
        suite=study,
        experiments={
            name: read_yaml(find_file("experiments", task.experiment)).data
            for name, task in study.tasks.items()
        },
        cells=plan_cells(study),
        **beginning(),
    )
    return Campaign(StudyFiles(root), manifest, manifest.cells)


def command_of(manifest: StudyManifest, cell: StudyCell, paths: StudyFiles) -> list[str]:
    """The arguments of `tianji` that start one run."""
    study, task = manifest.suite, cell.task
    is_kept = task in manifest.experiments
    experiment = str(paths.experiment(task)) if is_kept else study.tasks[task].experiment
    settings = [
        word for setting in study.settings_of(task, cell.variant) for word in ("-s", setting)
    ]
    return [
        *("-q", "up", "-x", experiment),
        *settings,
        *("--seed", str(cell.seed), "--name", cell.name, "--results", str(paths.runs)),
    ]


def write_experiment(paths: StudyFiles, manifest: StudyManifest, task: str) -> None:
    """Writes the experiment file that `command_of` names, if the manifest has it."""
    if task in manifest.experiments:
        write_json(paths.experiment(task), manifest.experiments[task])


def run_cell(work: StudyCampaign, cell: StudyCell) -> StudyRun:
    """Runs one cell to its end, of whatever kind; no process of it is left running.

    Raises:
        KeyboardInterrupt: The user stopped it; the run was ended, and nothing was concluded.
    """
    paths, study = work.files, work.manifest.suite
    clear(paths.root, paths.cell(cell))  # left by an interrupted attempt
    make_inside(paths.root, paths.runs)
    write_experiment(paths, work.manifest, cell.task)
    output = paths.runs / f"{cell.name}.log"
    output.unlink(missing_ok=True)
    load, started_at = load_now(), now_text()
    argv = module_command(
        sys.executable, "tianji_cli.main", *command_of(work.manifest, cell, paths)
    )
    budget_s = study.tasks[cell.task].budget_s or study.budget_s
    watcher = TimeLimit(budget_s + GRACE_S, PATIENCE_S)
    env = with_own_path(_with_modules_of(study.tasks[cell.task].experiment))
    run_child(argv, env, Path.cwd(), output, watcher)
    run = RunPaths(paths.cell(cell))
    found = conclude(cell, run, work.manifest.machine.id, load, output)
    return msgspec.structs.replace(found, started_at=started_at, command=argv)


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


def conclude(cell: StudyCell, run: RunPaths, machine_id: str, load: Load, output: Path) -> StudyRun:
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
    """Outcome of a run, and the reason if it failed."""
    if summary is None:
        return "failed", "it wrote no summary"
    if summary.status != "ok":
        return "failed", summary.error or f"{summary.status} by {summary.stop_reason}"
    if summary.reached is None:
        return "ended", ""
    return ("reached" if summary.reached else "censored"), ""
