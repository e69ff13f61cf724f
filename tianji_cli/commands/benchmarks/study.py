"""`tianji bench STUDY`: the same experiments under several settings, with several seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import msgspec

from engine.errors import ConfigError
from tianji_cli import units
from tianji_cli.bench.places import Parallel, RunPlace, places_of
from tianji_cli.bench.scaling.suite import find_inventory, is_lab
from tianji_cli.bench.search.board import need_optuna
from tianji_cli.bench.study.compare import TaskResult
from tianji_cli.bench.study.crew import StudyCrew
from tianji_cli.bench.study.records import StudyCell, StudyFiles, StudyManifest, StudyRun
from tianji_cli.bench.study.run import StudyCampaign, new_study
from tianji_cli.bench.study.searching import Searcher
from tianji_cli.bench.study.spec import Study, load_study
from tianji_cli.commands.benchmarks.bench_request import BenchRequest, chosen
from tianji_cli.commands.benchmarks.conduct import Kind
from tianji_cli.config.inventory import load_inventory
from tianji_cli.output import Output
from tianji_cli.render.bench.bench_live import BenchDisplay
from tianji_cli.render.bench.search_text import search_words, setting_text
from tianji_cli.render.run.rows import mean_at_end
from tianji_cli.storage.masking import filled


class StudyKind(Kind[StudyFiles, StudyManifest, StudyCell, StudyRun]):
    """TianJi under several settings."""

    files = StudyFiles
    unused: ClassVar[Mapping[str, str]] = {
        "--compare": "a study compares settings of TianJi, not systems",
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
        inventory = None
        if request.inventory is not None:
            named_lab = request.inventory == "lab"
            inventory = load_inventory(find_inventory(None if named_lab else request.inventory))
        root = request.results / request.new_id("study", study.name)
        return new_study(study, root, inventory)

    def renew(self, work: StudyCampaign) -> StudyCampaign:
        inventory = work.manifest.inventory
        if inventory is None:
            return work
        fix = "restore that file; only a new study can use another"
        changed = msgspec.structs.replace(work.manifest, inventory=filled(inventory, fix))
        return replace(work, manifest=changed)

    def scheduled(self, work: StudyCampaign, request: BenchRequest) -> StudyCampaign:
        work = _with_parallel(work, request.checked_parallel())
        if work.open_cells:
            _check_places(work.manifest)
            if work.manifest.suite.search is not None:
                need_optuna()
        return work

    def announce(self, work: StudyCampaign) -> Iterator[str]:
        study, cells = work.manifest.suite, work.open_cells
        places = _places_in(work.manifest)
        done = f" ({work.num_done} of {len(work.manifest.cells)} done)" if work.num_done else ""
        total_s = sum(study.budget_of(cell.task) for cell in cells)
        if study.search is not None:
            yield search_words(study.search)
        yield (
            f"{units.plural(len(cells), 'run')}{done}, {_side_by_side(len(places))}, at most"
            f" {units.seconds(total_s / len(places))} of training in all"
        )
        if work.manifest.inventory is not None:
            yield f"hosts: {'; '.join(dict.fromkeys(place.name for place in places))}"
        if any(place.is_shared for place in places):
            yield "runs share cores, so their times will not be compared; returns will be"

    def runner(
        self, work: StudyCampaign, display: BenchDisplay, held: ExitStack
    ) -> Callable[[StudyCell], StudyRun]:
        is_searching = work.manifest.suite.search is not None and len(work.open_cells) > 0
        searcher = Searcher(work, held) if is_searching else None
        places = _places_in(work.manifest)

        def show(running: Sequence[str]) -> None:
            display.show(", ".join(running))

        return StudyCrew(work, places, searcher, show, display.say)

    def line(self, result: StudyRun) -> str:
        return f"{result.cell.name}: {_words(result)}"

    def report(
        self, roots: Sequence[Path], out: Path | None, output: Output, *, archives: bool = False
    ) -> bool:
        from tianji_cli.commands.benchmarks.study_report import show_study, write_study_report

        report = write_study_report(roots[0], out)
        show_study(report, output)
        return all(map(_is_complete, report.comparison.tasks))


def _with_parallel(work: StudyCampaign, parallel: Parallel | None) -> StudyCampaign:
    """The same with as many runs at once; None: as its file says."""
    if parallel is None:
        return work
    study = msgspec.structs.replace(work.manifest.suite, parallel=parallel)
    return replace(work, manifest=msgspec.structs.replace(work.manifest, suite=study))


def _places_in(manifest: StudyManifest) -> list[RunPlace]:
    """Where the runs of a study take place."""
    study, inventory = manifest.suite, manifest.inventory
    return places_of(
        inventory,
        study.hosts_per_run,
        study.parallel,
        is_lab=inventory is not None and is_lab(inventory),
    )


def _check_places(manifest: StudyManifest) -> None:
    """Raises ConfigError if there are too few hosts, or a search for the shortest time shares
    them."""
    search, is_shared = manifest.suite.search, any(p.is_shared for p in _places_in(manifest))
    if search is not None and search.objective == "time to threshold" and is_shared:
        raise ConfigError(
            "runs that share cores cannot be compared by their times",
            where="search.objective",
            fix="--parallel auto, or another objective",
        )


def _side_by_side(num_places: int) -> str:
    return "one after the other" if num_places == 1 else f"{num_places} at a time"


def _is_complete(task: TaskResult) -> bool:
    """Whether nothing is missing, censored or has failed; of a search whether it found a best
    setting, and no trial has failed."""
    if task.search is not None:
        failed = any(trial.state in ("failed", "open") for trial in task.search.trials)
        return task.search.best is not None and not failed
    return all(item.num_failed == item.num_censored == 0 for item in task.variants)


def _without(study: Study, key: str) -> Study:
    """The same, without values of its tasks that override the study."""
    tasks = {
        name: msgspec.structs.replace(task, **{key: None}) for name, task in study.tasks.items()
    }
    return msgspec.structs.replace(study, tasks=tasks)


def _words(run: StudyRun) -> str:
    setting = f"{setting_text(run.params)}: " if run.params else ""
    return f"{setting}{_outcome_words(run)}"


def _outcome_words(run: StudyRun) -> str:
    summary = run.summary
    if run.outcome == "failed" or summary is None:
        return f"{run.outcome}: {run.detail}"
    rate = units.rate(summary.consume_per_s)
    if run.outcome == "reached":
        when, steps = units.seconds(summary.time_to_threshold_s), summary.steps_to_threshold
        return f"reached in {when} and {units.count(steps)} env steps, {rate}"
    mean, wall = mean_at_end(summary.return_mean, summary), units.seconds(summary.wall_s)
    return f"{run.outcome} at a mean return of {mean} after {wall}, {rate}"


KIND = StudyKind()
