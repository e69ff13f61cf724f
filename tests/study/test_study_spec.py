"""Studies are data: what they may say, and what the shipped ones do say."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from engine.config.config_file import load_experiment
from engine.config.yaml_text import parse_text
from engine.errors import ConfigError
from engine.search_path import MODULES_VARIABLE
from engine.spec import Experiment, Scalar
from tests.helpers.bench.study_fakes import SMALL, manifest_of
from tianji_cli.bench.study.records import StudyFiles
from tianji_cli.bench.study.run import (
    _with_modules_of,
    command_of,
    new_study,
    plan_cells,
    write_experiment,
)
from tianji_cli.bench.study.spec import Study, StudyTask, load_study, setting_words
from tianji_cli.bench.tasks.suite import load_suite
from tianji_cli.config.lookup import find_file
from tianji_cli.storage.json_files import create_result_dir

SHIPPED = ("staleness", "asynchrony", "overlap", "reference", "spaces", "search")


def shipped_study(name: str, *settings: str) -> Study:
    return load_study(name, settings)


def experiment_of(study: Study, task: str, variant: str) -> Experiment:
    path = find_file("experiments", study.tasks[task].experiment)
    return load_experiment(path, study.settings_of(task, variant))[0]


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_studies_can_be_used(name: str):
    assert shipped_study(name).name == name


@pytest.mark.parametrize("task", ["ppo", "impala"])
def test_the_staleness_study_spans_every_bound_and_none(task: str):
    study = shipped_study("staleness")
    assert study.seeds_of(task) >= 5
    specs = [experiment_of(study, task, name).staleness for name in study.tasks[task].variants]
    assert [spec.max_lag for spec in specs[:-1]] == [0, 1, 2, 4, 8, 16]
    assert {spec.mode for spec in specs[:-1]} == {"block"}
    assert specs[-1].mode == {"ppo": "unbounded", "impala": "correct"}[task]


def test_the_asynchrony_study_differs_in_policy_and_lag_alone():
    study = shipped_study("asynchrony")
    assert study.seeds_of("cartpole") >= 10
    assert study.tasks["cartpole"].baseline == "local-lag0"
    twin, asynchronous = (
        experiment_of(study, "cartpole", name) for name in ("local-lag0", "tianji-lag1")
    )
    assert (twin.policy, twin.staleness.max_lag) == ("local", 0)
    assert (asynchronous.policy, asynchronous.staleness.max_lag) == ("tianji", 1)
    assert twin.algorithm == asynchronous.algorithm
    assert twin.stop == asynchronous.stop


def test_the_reference_study_is_every_experiment_as_written():
    study = shipped_study("reference")
    for name, task in study.tasks.items():
        assert task.experiment == name
        written, _ = load_experiment(find_file("experiments", name))
        found = experiment_of(study, name, "default")
        assert found.stop.return_threshold == written.stop.return_threshold is not None
        assert found.algorithm == written.algorithm
        assert study.seeds_of(name) >= (3 if "minatar" in name else 5)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("tasks.cartpole.seed=1", ["unknown key 'seed'", "'seeds'"]),
        ("tasks.cartpole.budget_s=0", ["> 0"]),
        ("tasks.cartpole.baseline=lokal", ["'lokal' is no variant", "local-lag0"]),
        ("tasks.cartpole=null", ["no task is left"]),
        ("tasks=4", ["tasks"]),
        ("tasks.cartpole.variants={}", ["no variant is left"]),
        ("tasks.cartpole.variants={'a b': {}}", ["a b"]),
        ("tasks.cartpole.variants.local-lag0={seed: 3}", ["seeds belong to the study"]),
        ("tasks.cartpole.variants.local-lag0={acters: 3}", ["unknown key 'acters'", "'actors'"]),
        ("tasks.cartpole.experiment=cartpole_pop", ["no such file", "'cartpole_ppo'"]),
    ],
)
def test_what_cannot_be_used_is_refused(setting: str, words: list[str]):
    with pytest.raises(ConfigError) as caught:
        shipped_study("asynchrony", setting)
    text = f"{caught.value.where} {caught.value.what} {caught.value.fix}"
    for word in words:
        assert word in text


def test_a_task_can_be_left_out():
    study = shipped_study("staleness", "tasks.impala=null")
    assert list(study.tasks) == ["ppo"]


def test_an_unknown_name_suggests_a_study():
    with pytest.raises(ConfigError, match="did you mean 'staleness'"):
        load_suite("stalenes")


def test_later_settings_win():
    task = StudyTask(
        experiment="cartpole_ppo",
        settings={"stop.seconds": 5, "staleness.max_lag": 9},
        variants={"a": {"staleness.max_lag": 0}},
    )
    study = msgspec.structs.replace(SMALL, tasks={"two": task})
    assert study.settings_of("two", "a") == ["stop.seconds=5", "staleness.max_lag=0"]


def test_values_are_written_as_the_command_line_reads_them():
    assert setting_words({"a.b": "off", "c": 1e-3, "d": True}) == ['a.b="off"', "c=0.001", "d=true"]


def test_cells_come_in_blocks_and_the_same_every_time():
    cells = plan_cells(SMALL)
    assert cells == plan_cells(SMALL)
    counts = Counter((cell.task, cell.variant) for cell in cells)
    assert counts == {("two", "a"): 3, ("two", "b"): 3, ("one", "default"): 1}
    assert [cell.seed for cell in cells] == sorted(cell.seed for cell in cells)


def test_the_order_within_a_block_changes():
    many = msgspec.structs.replace(SMALL, seeds=10)
    orders = {
        tuple(cell.variant for cell in plan_cells(many) if (cell.task, cell.seed) == ("two", seed))
        for seed in range(10)
    }
    assert orders == {("a", "b"), ("b", "a")}


def test_a_run_is_started_as_a_user_would():
    manifest = manifest_of()
    cell = manifest.cells[0]
    words = command_of(manifest, cell, StudyFiles(Path("results/study-1")))
    assert words[:4] == ["-q", "up", "-x", SMALL.tasks[cell.task].experiment]
    assert words[-6:] == [
        *("--seed", str(cell.seed), "--name", cell.name),
        *("--results", "results/study-1/runs"),
    ]


def test_runs_are_those_of_the_manifest_whatever_the_experiment_file_says_by_now(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(find_file("experiments", "cartpole_ppo").read_text())
    task = StudyTask(experiment=str(file), variants={"a": {"staleness.max_lag": 3}})
    study = msgspec.structs.replace(SMALL, tasks={"t": task})
    before, _ = load_experiment(file, study.settings_of("t", "a"))
    work = new_study(study, tmp_path / "s")
    create_result_dir(work.files.manifest, work.manifest)
    file.write_text("version: 1\nname: another\n")
    again = work.files.read_manifest()
    cell = again.cells[0]
    words = command_of(again, cell, work.files)
    work.files.runs.mkdir()
    write_experiment(work.files, again, cell.task)
    given = [words[i + 1] for i, word in enumerate(words) if word == "-s"]
    assert load_experiment(Path(words[words.index("-x") + 1]), given)[0] == before


@pytest.mark.parametrize(
    "value", [1, 1.5, 1e30, True, None, "010", "yes", "1e3", "a: b", "é😀", "'\""]
)
def test_settings_are_read_back_as_the_same_values(value: Scalar):
    (word,) = setting_words({"key": value})
    found = parse_text(word.removeprefix("key="), "f").value
    assert (type(found), found) == (type(value), value)


def test_own_modules_beside_an_experiment_are_found_by_its_copy(monkeypatch):
    monkeypatch.setenv(MODULES_VARIABLE, "/elsewhere")
    found = _with_modules_of("spaces/aim_ppo")[MODULES_VARIABLE].split(os.pathsep)
    assert found[0] == "/elsewhere"
    assert (Path(found[1]) / "spaces_tasks.py").is_file()
    assert _with_modules_of("spaces/gone")[MODULES_VARIABLE] == "/elsewhere"


@pytest.mark.parametrize("name", ["../experiments/spaces/aim_ppo", "spaces", "/spaces/aim_ppo"])
def test_a_name_that_leads_elsewhere_is_no_shipped_experiment(name: str, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="no such file"):
        find_file("experiments", name)
