"""`tianji bench STUDY`: the same experiments under several settings, with several seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import ClassVar

import msgspec

from tianji_cli import units
from tianji_cli.bench.study.records import StudyCell, StudyFiles, StudyManifest, StudyRun
from tianji_cli.bench.study.run import StudyCampaign, new_study, run_cell
from tianji_cli.bench.study.spec import Study, load_study
from tianji_cli.commands.benchmarks.bench_request import BenchRequest, chosen
from tianji_cli.commands.benchmarks.conduct import Kind
from tianji_cli.output import Output
from tianji_cli.render.bench.bench_live import BenchDisplay
from tianji_cli.render.run.rows import mean_at_end


class StudyKind(Kind[StudyFiles, StudyManifest, StudyCell, StudyRun]):
    """TianJi under several settings."""

    files = StudyFiles
    unused: ClassVar[Mapping[str, str]] = {
        "--compare": "a study compares settings of TianJi, not systems",
        "--hosts": "a study runs on this machine and takes no inventory",
        "--skip-missing": "a study uses no other system",
    }

    def plan(self, request: BenchRequest, output: Output) -> StudyCampaign:
        study = load_study(request.suite, request.settings)
        study = msgspec.structs.replace(study, tasks=chosen(study.tasks, request.tasks))
        if request.seeds is not None:
            study = msgspec.structs.replace(_without(study, "seeds"), seeds=request.seeds)
        budget_s = request.checked_budget_s()
        if budget_s is not None:
            study = msgspec.structs.replace(_without(study, "budget_s"), budget_s=budget_s)
        return new_study(study, request.results / request.new_id("study", study.name))

    def announce(self, work: StudyCampaign) -> Iterator[str]:
        study, cells = work.manifest.suite, work.open_cells
        done = f" ({work.num_done} of {len(work.manifest.cells)} done)" if work.num_done else ""
        longest_s = sum(study.tasks[cell.task].budget_s or study.budget_s for cell in cells)
        yield (
            f"{units.plural(len(cells), 'run')}{done}, one after the other, at most"
            f" {units.seconds(longest_s)} of training in all"
        )

    def runner(
        self, work: StudyCampaign, display: BenchDisplay, held: ExitStack
    ) -> Callable[[StudyCell], StudyRun]:
        def run(cell: StudyCell) -> StudyRun:
            display.show(cell.name)
            return run_cell(work, cell)

        return run

    def line(self, result: StudyRun) -> str:
        return f"{result.cell.name}: {_words(result)}"

    def report(
        self, roots: Sequence[Path], out: Path | None, output: Output, *, archives: bool = False
    ) -> bool:
        from tianji_cli.commands.benchmarks.study_report import show_study, write_study_report

        report = write_study_report(roots[0], out)
        show_study(report, output)
        return all(
            item.num_failed == item.num_censored == 0
            for task in report.comparison.tasks
            for item in task.variants
        )


def _without(study: Study, key: str) -> Study:
    """The same, without values of its tasks that override the study."""
    tasks = {
        name: msgspec.structs.replace(task, **{key: None}) for name, task in study.tasks.items()
    }
    return msgspec.structs.replace(study, tasks=tasks)


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


KIND = StudyKind()
