"""`tianji bench STUDY`: the same experiments under several settings, with several seeds."""

from __future__ import annotations

import msgspec

from tianji_cli.bench.conditions import check_own_versions
from tianji_cli.commands.bench_request import BenchRequest, Kind, chosen, conduct
from tianji_cli.output import Output
from tianji_cli.render import units
from tianji_cli.render.rows import mean_at_end
from tianji_cli.study.records import StudyRun, is_study
from tianji_cli.study.run import (
    StudyWork,
    new_study,
    read_work,
    run_study,
)
from tianji_cli.study.spec import find_study, load_study


def wants_study(request: BenchRequest) -> bool:
    """Whether what is to be run, or to go on, is a study rather than a comparison of systems."""
    return request.wants(is_study, lambda name: find_study(name) is not None)


def study_command(request: BenchRequest, output: Output) -> int:
    """Plans, asks, runs, reports.

    Returns:
        0; 8 with `--strict` and a run that failed or is censored; 130 if interrupted.

    Raises:
        TianJiError: Nothing could be started; says why.
    """
    request.refuse(
        {
            "--compare": "a study compares settings of TianJi, not systems",
            "--hosts": "a study runs on this machine and takes no inventory",
            "--skip-missing": "a study uses no other system",
        }
    )
    kind = Kind(is_study, _planned, read_work, _checked, _announce, _run, _report)
    return conduct(kind, request, output)


def _checked(work: StudyWork) -> StudyWork:
    check_own_versions(work.manifest.versions, str(work.paths.root))
    return work


def _planned(request: BenchRequest, output: Output) -> StudyWork:
    path = find_study(request.suite)
    assert path is not None
    study = load_study(path, request.settings)
    study = msgspec.structs.replace(study, tasks=chosen(study.tasks, request.tasks))
    if request.seeds is not None:
        tasks = {
            name: msgspec.structs.replace(task, seeds=None) for name, task in study.tasks.items()
        }
        study = msgspec.structs.replace(study, seeds=request.seeds, tasks=tasks)
    budget_s = request.checked_budget_s()
    if budget_s is not None:
        tasks = {
            name: msgspec.structs.replace(task, budget_s=None) for name, task in study.tasks.items()
        }
        study = msgspec.structs.replace(study, budget_s=budget_s, tasks=tasks)
    return new_study(study, request.results / request.new_id("study", study.name))


def _announce(work: StudyWork, output: Output) -> None:
    """What will be done and how long it may take, before anything starts."""
    manifest, study = work.manifest, work.manifest.study
    output.say(f"{manifest.study_id}: {study.summary}")
    done = f" ({work.num_done} of {len(manifest.cells)} done)" if work.num_done else ""
    longest_s = sum(study.tasks[cell.task].budget_s or study.budget_s for cell in work.open_cells)
    output.say(
        f"{units.plural(len(work.open_cells), 'run')}{done}, one after the other, at most"
        f" {units.seconds(longest_s)} of training in all"
    )
    for cell in work.open_cells:
        output.say(f"  {cell.run_id}", at_verbosity=1)


def _run(work: StudyWork, output: Output) -> None:
    total, count = len(work.manifest.cells), work.num_done

    def finished(run: StudyRun) -> None:
        nonlocal count
        count += 1
        output.say(f"[{count}/{total}] {run.cell.run_id}: {_words(run)}")

    run_study(work, finished)


def _words(run: StudyRun) -> str:
    summary = run.summary
    if run.outcome == "failed" or summary is None:
        return f"failed: {run.detail}"
    rate = units.rate(summary.consume_per_s)
    if run.outcome == "reached":
        when, steps = units.seconds(summary.time_to_threshold_s), summary.steps_to_threshold
        return f"reached in {when} and {units.count(steps)} env steps, {rate}"
    mean, wall = mean_at_end(summary.return_mean, summary), units.seconds(summary.wall_s)
    return f"{run.outcome} at a mean return of {mean} after {wall}, {rate}"


def _report(work: StudyWork, output: Output) -> bool:
    from tianji_cli.commands.study_report import show_study, write_study_report

    report = write_study_report(work.paths.root, None)
    show_study(report, output)
    return all(
        item.num_failed == item.num_censored == 0
        for task in report.comparison.tasks
        for item in task.variants
    )
