"""Suites are data: what they may say, and what the shipped ones do say."""

from __future__ import annotations

import pytest

from engine.errors import ConfigError
from tianji_cli.bench.systems.base import Job
from tianji_cli.bench.systems.registry import SYSTEMS_BY_NAME
from tianji_cli.bench.systems.tianji import experiment_of
from tianji_cli.bench.tasks.suite import LAG_BOUND, SYSTEMS, load_suite, scalar_rows

SHIPPED = ("smoke", "cartpole", "classic", "minatar", "atari", "continuous", "marl", "fused")


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_suites_can_be_used(name):
    suite = load_suite(name)
    assert suite.name == name
    for task in suite.tasks.values():
        assert "tianji" in task.systems
        assert task.stall_s < task.start_s + task.budget_s


def test_every_system_has_an_adapter():
    assert tuple(SYSTEMS_BY_NAME) == SYSTEMS


@pytest.mark.parametrize("name", SHIPPED)
def test_the_parity_table_names_every_setting_of_every_system(name):
    for task in load_suite(name).tasks.values():
        for system in task.systems:
            rows = SYSTEMS_BY_NAME[system].parity(task)
            assert {row.setting for row in rows} >= set(scalar_rows(task))
            assert all(row.note for row in rows if row.match != "equal")


@pytest.mark.parametrize("name", SHIPPED)
def test_nobody_is_left_out_of_a_task_without_a_reason(name):
    """Whoever is not named cannot do it, and whoever is named can."""
    for task in load_suite(name).with_other().tasks.values():
        for system in SYSTEMS:
            is_unable = SYSTEMS_BY_NAME[system].refusal(task) is not None
            assert (system in task.systems) != (is_unable or system in task.without)


def test_all_are_judged_by_the_same_rule():
    task = load_suite("smoke").with_other().tasks["ppo"]
    for system in SYSTEMS:
        (row,) = (row for row in SYSTEMS_BY_NAME[system].parity(task) if row.setting == "judge")
        assert row.match == "equal"
        assert "100 training episodes at least 150 after 10 episodes in a row" in row.wanted


def test_threads_are_given_to_those_that_can_be_told():
    settings = ["tasks.hopper-sac.threads=2", "tasks.hopper-sac.peers.sb3.threads=1"]
    task = load_suite("continuous", settings).tasks["hopper-sac"]
    assert (task.of("tianji").threads, task.of("sb3").threads) == (2, 1)
    with pytest.raises(ConfigError, match="rllib is not set up for several threads") as raised:
        load_suite("cartpole", ["tasks.ppo-400.threads=2"])
    assert raised.value.where.endswith("tasks.ppo-400.peers.rllib")


def test_overrides_are_differences():
    task = load_suite("smoke").tasks["ppo"]
    assert task.of("xingtian").envs_per_worker == 1
    assert task.of("rllib") == task
    rows = {row.setting: row for row in SYSTEMS_BY_NAME["xingtian"].parity(task)}
    assert rows["envs_per_worker"].match == "different"
    assert rows["seed"].match == "not settable"
    assert rows["learning_rate"].match == "equal"


def test_initial_weights_that_cannot_be_chosen_are_differences():
    task = load_suite("continuous").tasks["pendulum-sac"]
    orthogonal = load_suite(
        "continuous", ["tasks.pendulum-sac.network.initialization=orthogonal"]
    ).tasks["pendulum-sac"]
    matches = {
        (name, work.network.initialization): row.match
        for name in task.systems
        for work in (task, orthogonal)
        for row in SYSTEMS_BY_NAME[name].parity(work)
        if row.setting == "network"
    }
    assert [name for name, match in matches.items() if match == "different"] == [
        ("single-process", "orthogonal"),
        ("compiled-loop", "orthogonal"),
        ("sb3", "orthogonal"),
        ("rejax", "uniform"),
        ("rejax", "orthogonal"),
    ]


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("tasks.ppo.budget=1", ["unknown key 'budget'", "'budget_s'"]),
        ("tasks.ppo.budget_s=0", ["> 0"]),
        ("tasks.ppo.peers.rlib={}", ["unknown system 'rlib'", "'rllib'"]),
        ("tasks.ppo.algorithm.minibatch_steps=300", ["300 does not divide the batch"]),
        ("tasks.ppo.algorithm.name=a3c", ["a3c"]),
        ("tasks.ppo.algorithm.name=sac", ["unknown key 'gae_lambda'"]),
        ("tasks.ppo.algorithm.clip_rang=0.1", ["unknown key 'clip_rang'", "clip_range"]),
        ("tasks.ppo.judge.windw=10", ["unknown key 'windw'", "window"]),
        ("tasks.ppo.judge.returns=evaluation", ["evaluation"]),
        ("tasks.ppo.threshold=.nan", ["can never be reached"]),
        ("tasks.ppo.min_s=1000", ["longer than budget_s"]),
    ],
)
def test_what_cannot_be_used_is_refused(setting, words):
    with pytest.raises(ConfigError) as caught:
        load_suite("smoke", [setting])
    for word in words:
        assert word in str(caught.value)


def test_an_unknown_suite_suggests_one():
    with pytest.raises(ConfigError, match="did you mean 'cartpole'"):
        load_suite("cartpol")


def test_a_lag_bound_is_refused_where_it_would_do_nothing():
    assert load_suite("cartpole", ["tasks.ppo-400.max_lag=2"]).tasks["ppo-400"].max_lag == 2
    with pytest.raises(ConfigError, match="dqn has no lag bound"):
        load_suite("cartpole", ["tasks.dqn.max_lag=2"])


def test_a_task_can_have_actors_with_environments_of_tensors():
    task = load_suite("tensors").tasks["ppo-400"]
    job = Job(system="tianji", task_name="ppo-400", task=task, seed=3, scratch="/tmp")
    experiment = experiment_of(job)
    assert (experiment["policy"], experiment["env"]["backend"]) == ("tianji", "torch")
    rows = {row.setting: row for row in SYSTEMS_BY_NAME["tianji"].parity(task)}
    assert rows["environment"].match == "equal"
    assert "version of tensors" in rows["environment"].note
    assert LAG_BOUND not in rows or rows[LAG_BOUND].match == "equal"


def test_a_task_can_have_one_fused_loop():
    task = load_suite("fused").tasks["ppo-4096"]
    job = Job(system="tianji", task_name="ppo-4096", task=task, seed=3, scratch="/tmp")
    experiment = experiment_of(job)
    assert (experiment["policy"], experiment["actors"]) == ("gpu-only", 1)
    assert "staleness" not in experiment
    rows = {row.setting: row for row in SYSTEMS_BY_NAME["tianji"].parity(task)}
    assert rows["environment"].match == "equal"
    assert rows[LAG_BOUND].note.startswith("0: ")
    with pytest.raises(ConfigError, match="gpu-only collects and learns by turns"):
        load_suite("fused", ["tasks.ppo-4096.max_lag=2"])
