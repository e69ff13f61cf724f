"""A search from plan to report, with runs that a function makes up in place of processes."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import yaml

from engine.config.config_file import load_experiment
from engine.errors import ConfigError, RunFailedError
from tests.helpers.bench.bench_requests import request_for
from tests.helpers.bench.study_fakes import run_of, summary
from tianji_cli.bench.campaign import read_campaign, run_open_cells
from tianji_cli.bench.places import places_of
from tianji_cli.bench.search.board import NUM_POINTS
from tianji_cli.bench.study import crew as crew_module
from tianji_cli.bench.study.compare import compare_study
from tianji_cli.bench.study.crew import StudyCrew
from tianji_cli.bench.study.records import LearningCurve, StudyCell, StudyFiles, StudyRun
from tianji_cli.bench.study.run import StudyCampaign, Turn
from tianji_cli.bench.study.searching import Pruning, Searcher
from tianji_cli.bench.study.trials import best_of, trials_of, value_of
from tianji_cli.commands.benchmarks.study import KIND
from tianji_cli.commands.benchmarks.study_report import show_study, write_study_report
from tianji_cli.output import Output
from tianji_cli.render.bench.search_text import search_lines
from tianji_cli.storage.json_files import create_result_dir

pytest.importorskip("optuna")
QUIET = Output(verbosity=-1)
Made = Callable[[StudyCell, Turn], StudyRun]


def planned(root: Path, *settings: str) -> StudyCampaign:
    request = replace(
        request_for(root, resume=False), suite="search", name=root.name, settings=settings
    )
    work = KIND.scheduled(KIND.plan(request, QUIET), request)
    create_result_dir(work.files.manifest, work.manifest)
    return work


def finished(cell: StudyCell, turn: Turn, level: float | None = None) -> StudyRun:
    """A run of which the return is best at a learning rate of 0.001."""
    rate = turn.params["algorithm.learning_rate"]
    assert isinstance(rate, float)
    value = 400 - 100 * abs(math.log10(rate) + 3) if level is None else level
    found = msgspec.structs.replace(
        summary(cell.seed, steps=None), return_mean=value, threshold=475.0
    )
    curve = LearningCurve(t_s=[1, 7, 15], env_steps=[0, 500, 1000], return_mean=[20, value, value])
    return msgspec.structs.replace(
        run_of(cell, found), params=dict(turn.params), curve=curve, manifest={}
    )


def search_on(work: StudyCampaign, made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs what is open, as a command would."""
    machine = work.manifest.machine.id

    def run(_: object, cell: StudyCell, turn: Turn) -> StudyRun:
        return msgspec.structs.replace(made(cell, turn), machine_id=machine)

    monkeypatch.setattr(crew_module, "run_cell", run)
    with ExitStack() as held:
        crew = StudyCrew(work, places_of(None), Searcher(work, held), lambda _: None, print)
        run_open_cells(work, crew)


def rows(files: StudyFiles) -> list[dict[str, object]]:
    return [json.loads(line) for line in files.records.read_text().splitlines()]


def test_a_search_that_was_killed_goes_on_as_if_it_had_not_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    straight = planned(tmp_path / "straight", "search.trials=6")
    search_on(straight, finished, monkeypatch)
    killed = planned(tmp_path / "killed", "search.trials=6")

    def until_the_third(cell: StudyCell, turn: Turn) -> StudyRun:
        if cell.variant == "trial3":
            raise KeyboardInterrupt
        return finished(cell, turn)

    with pytest.raises(KeyboardInterrupt):
        search_on(killed, until_the_third, monkeypatch)
    assert len(rows(killed.files)) == 3
    search_on(read_campaign(killed.files), finished, monkeypatch)
    one, other = ([row["params"] for row in rows(work.files)] for work in (straight, killed))
    assert one == other
    assert len(one) == 6


def test_a_trial_has_every_seed_with_one_setting(tmp_path, monkeypatch):
    work = planned(tmp_path / "s", "search.trials=3", "seeds=2")
    search_on(work, lambda c, t: finished(c, t, level=100.0 * c.seed), monkeypatch)
    settings = {(r["cell"]["variant"], json.dumps(r["params"])) for r in rows(work.files)}  # type: ignore[index]
    assert len(settings) == 3
    runs = work.files.read_results(work.manifest)
    found = trials_of(work.manifest, "cartpole", runs)
    assert [trial.state for trial in found] == ["complete"] * 3
    assert len(work.manifest.cells) == len(runs) == 6


def test_the_other_seeds_of_a_pruned_trial_are_not_run(tmp_path, monkeypatch):
    work = planned(tmp_path / "s", "search.trials=2", "seeds=3")
    made = []

    def pruned_at_once(cell: StudyCell, turn: Turn) -> StudyRun:
        made.append(cell)
        run = finished(cell, turn)
        is_pruned = (cell.variant, cell.seed) == ("trial0", 1)
        return msgspec.structs.replace(run, outcome="pruned" if is_pruned else run.outcome)

    search_on(work, pruned_at_once, monkeypatch)
    assert len(made) == 5
    runs = work.files.read_results(work.manifest)
    last = runs[work.manifest.cells[2]]
    assert (last.outcome, last.detail) == ("pruned", "the trial was pruned with seed 1")
    assert last.params == runs[work.manifest.cells[0]].params
    found = compare_study(work.manifest, runs)
    search = found.tasks[0].search
    assert search is not None
    assert [trial.state for trial in search.trials] == ["pruned", "complete"]
    assert search.best == 1
    assert found.tasks[0].variants[0].num_pruned == 2
    assert not any("failed" in line for line in found.warnings)


def test_trials_that_fail_are_recorded_and_do_not_stop_the_search_until_too_many(
    tmp_path, monkeypatch
):
    work = planned(tmp_path / "s", "search.trials=9", "search.max_failed=2")

    def failing(cell: StudyCell, turn: Turn) -> StudyRun:
        run = finished(cell, turn)
        is_wrong = int(cell.variant[-1]) % 2 == 0
        return msgspec.structs.replace(
            run, outcome="failed" if is_wrong else run.outcome, detail="diverged"
        )

    with pytest.raises(RunFailedError, match="3 trials failed, the last: diverged") as caught:
        search_on(work, failing, monkeypatch)
    assert "--resume" in caught.value.fix
    assert [row["outcome"] for row in rows(work.files)] == [
        "failed", "censored", "failed", "censored", "failed",
    ]  # fmt: skip
    search_on(read_campaign(work.files), finished, monkeypatch)
    runs = work.files.read_results(work.manifest)
    found = trials_of(work.manifest, "cartpole", runs)
    assert [trial.state for trial in found].count("failed") == 3
    assert found[0].detail == "diverged"
    assert len(found) == 9


def test_a_run_without_an_episode_has_no_value(tmp_path, monkeypatch):
    work = planned(tmp_path / "s", "search.trials=1")

    def short(cell: StudyCell, turn: Turn) -> StudyRun:
        run = finished(cell, turn)
        assert run.summary is not None
        empty = msgspec.structs.replace(run.summary, return_mean=None)
        return msgspec.structs.replace(run, summary=empty, curve=LearningCurve())

    search_on(work, short, monkeypatch)
    (found,) = trials_of(work.manifest, "cartpole", work.files.read_results(work.manifest))
    assert (found.state, found.value, found.detail) == ("failed", None, "no episode was finished")


def values(work: StudyCampaign, objective: str, run: StudyRun) -> float | None:
    assert work.manifest.suite.search is not None
    search = msgspec.structs.replace(work.manifest.suite.search, objective=objective)
    return value_of(search, run, 20.0)


def test_objectives_are_the_figures_they_are_called_after(tmp_path):
    work = planned(tmp_path / "s", "search.trials=1")
    cell = work.manifest.cells[0]
    run = finished(cell, Turn(params={"algorithm.learning_rate": 1e-3}), level=100.0)
    assert values(work, "final return", run) == 100
    assert values(work, "time to threshold", run) == math.inf
    area = 1 * 20 + 6 * (20 + 100) / 2 + 8 * 100 + 5 * 100
    assert values(work, "area under curve", run) == pytest.approx(area / 20)
    reached = run_of(cell, summary(0, steps=5000))
    assert values(work, "time to threshold", reached) == 5.0
    failed = msgspec.structs.replace(run, outcome="failed")
    assert values(work, "final return", failed) is None


def test_the_best_is_the_highest_or_the_lowest_and_the_first_of_equals(tmp_path, monkeypatch):
    work = planned(tmp_path / "s", "search.trials=4")
    levels = {"trial0": 5.0, "trial1": 9.0, "trial2": 9.0, "trial3": -1.0}
    search_on(work, lambda c, t: finished(c, t, levels[c.variant]), monkeypatch)
    runs = work.files.read_results(work.manifest)
    trials = trials_of(work.manifest, "cartpole", runs)
    search = work.manifest.suite.search
    assert search is not None
    high, low = (
        best_of(msgspec.structs.replace(search, direction=direction), trials)
        for direction in ("maximize", "minimize")
    )
    assert (high and high.trial, low and low.trial) == (1, 3)


class Level:
    """Returns of a run as its traces would show them."""

    def __init__(self, *points: int) -> None:
        self.returns: dict[int, float] = {}
        self._points = iter(points)

    def look(self) -> bool:
        point = next(self._points, None)
        if point is not None:
            self.returns[point] = float(point)
        return point is not None


@pytest.mark.parametrize(
    ("points", "warmup", "answers"),
    [
        ((1, 2, 3, 4), 0.3, [False, False, True, True]),
        ((1, 2), 0.0, [True, True]),
        ((9, 10), 0.3, [True, False]),
        ((), 0.3, [False]),
        ((3,), 1.0, [False]),
    ],
)
def test_nothing_is_pruned_during_warmup_nor_at_the_end(points, warmup, answers):
    seen: list[dict[int, float]] = []

    def ask(returns: dict[int, float]) -> bool:
        seen.append(returns)
        return True

    pruning = Pruning(Level(*points), ask, warmup)  # type: ignore[arg-type]
    assert [pruning() for _ in answers] == answers
    assert len(seen) == len(points), "asked once for each new return"
    assert NUM_POINTS == 10


def reported(root: Path, monkeypatch: pytest.MonkeyPatch, *settings: str) -> StudyFiles:
    work = planned(root, *settings)

    def made(cell: StudyCell, turn: Turn) -> StudyRun:
        run = finished(cell, turn)
        if cell.variant == "trial3":
            return msgspec.structs.replace(run, outcome="pruned", detail="below the median")
        return run

    search_on(work, made, monkeypatch)
    return work.files


def test_the_report_names_the_best_setting_and_keeps_it_as_an_experiment(tmp_path, monkeypatch):
    files = reported(tmp_path / "s", monkeypatch, "search.trials=8")
    report = write_study_report(files.root, None)
    found = report.comparison.tasks[0].search
    assert found is not None
    best = found.best_trial
    assert best is not None
    assert sorted(found.importance, key=str) == [
        "algorithm.entropy_coefficient", "algorithm.learning_rate",
    ]  # fmt: skip
    experiment, _ = load_experiment(files.root / "best.yaml")
    assert experiment.algorithm["learning_rate"] == best.params["algorithm.learning_rate"]
    assert experiment.algorithm["num_epochs"] == 8, "as the task's experiment says"
    assert experiment.stop.seconds is None, "the budget of a trial is not part of it"
    assert experiment.learner.compile == "off", "but the settings of the study are"
    text = (files.root / "best.yaml").read_text()
    assert text.startswith("# The best of 8 trials of the study s (task cartpole, trial")
    assert "modules" not in text, "it has none of the user's own"
    assert {plot.name for plot in files.plots.iterdir()} == {
        f"cartpole-{name}.{end}"
        for name in ("history", "importance", "slices", "trials")
        for end in ("png", "svg")
    }
    for page in (files.report.read_text(), files.readme.read_text()):
        assert "8 trials: 7 complete, 1 pruned." in page
        assert f"the best is {best.variant}" in page
        assert "algorithm.learning_rate" in page
    lines = search_lines(report.comparison.tasks[0])
    assert any("importance: " in line for line in lines)


@pytest.mark.usefixtures("without_drawing")
def test_a_kept_search_needs_the_two_files_alone(tmp_path, monkeypatch):
    files = reported(tmp_path / "s", monkeypatch, "search.trials=5")
    write_study_report(files.root, tmp_path / "kept")
    kept = StudyFiles(tmp_path / "kept")
    assert sorted(path.name for path in kept.root.iterdir()) == [
        "README.md", "best.yaml", "comparison.json", "plots", "report.html", "runs.jsonl",
        "study.json",
    ]  # fmt: skip
    before = (kept.root / "best.yaml").read_bytes()
    write_study_report(kept.root, None)
    assert (kept.root / "best.yaml").read_bytes() == before


@pytest.mark.usefixtures("without_drawing")
def test_the_terminal_shows_the_best_trials_first(tmp_path, monkeypatch, capsys):
    files = reported(tmp_path / "s", monkeypatch, "search.trials=5")
    report = write_study_report(files.root, None)
    show_study(report, Output())
    shown = capsys.readouterr().out
    found = report.comparison.tasks[0].search
    assert found is not None
    ranked = sorted(
        (t for t in found.trials if t.value is not None), key=lambda t: -(t.value or 0.0)
    )
    assert [line.split()[0] for line in shown.splitlines() if line.startswith("trial")][1:] == [
        trial.variant for trial in ranked
    ]
    assert "best setting: " in shown
    assert "best.yaml" in shown


def test_times_of_runs_that_share_cores_are_no_objective(tmp_path):
    request = replace(
        request_for(tmp_path / "s", resume=False), suite="search", name="s", parallel="2",
        settings=('search.objective="time to threshold"',),
    )  # fmt: skip
    work = KIND.plan(request, QUIET)
    with pytest.raises(ConfigError, match="cannot be compared by their times"):
        KIND.scheduled(work, request)
    assert KIND.scheduled(work, replace(request, parallel=None)).open_cells


def test_without_optuna_a_search_is_refused_before_anything_starts(tmp_path, monkeypatch):
    request = replace(request_for(tmp_path / "s", resume=False), suite="search", name="s")
    work = KIND.plan(request, QUIET)
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigError, match="needs Optuna"):
        KIND.scheduled(work, request)


@pytest.mark.usefixtures("without_drawing")
def test_without_optuna_a_search_is_still_reported(tmp_path, monkeypatch):
    files = reported(tmp_path / "s", monkeypatch, "search.trials=5")
    monkeypatch.setitem(sys.modules, "optuna", None)
    found = write_study_report(files.root, None).comparison.tasks[0].search
    assert found is not None
    assert found.best is not None
    assert found.importance == {}
    assert "pip install" in found.importance_missing
    assert yaml.safe_load((files.root / "best.yaml").read_text())["name"] == "cartpole_ppo"


@pytest.mark.usefixtures("without_drawing")
def test_several_tasks_are_searched_each_on_its_own(tmp_path, monkeypatch):
    tasks = (
        'tasks.acrobot={experiment: acrobot_ppo, settings: {learner.compile: "off"}}',
        "search.trials=4",
    )
    files = reported(tmp_path / "s", monkeypatch, *tasks)
    report = write_study_report(files.root, None)
    names = [task.task for task in report.comparison.tasks]
    assert names == ["cartpole", "acrobot"]
    settings = [[t.params for t in task.search.trials] for task in report.comparison.tasks]  # type: ignore[union-attr]
    assert settings[0] != settings[1]
    for name in names:
        load_experiment(files.root / "best" / f"{name}.yaml")
