"""Comparisons with several agents: the suite, what baselines get, and how steps are counted."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from engine.algorithms.registry import read_config
from engine.config.config_file import load_experiment
from engine.errors import ConfigError
from engine.trace.records import Production
from tests.helpers.bench.bench_fakes import FakeSystem
from tests.helpers.paths import REPOSITORY
from tianji_cli.bench.comparison.harness import find_systems
from tianji_cli.bench.comparison.measure import measure
from tianji_cli.bench.comparison.results import Cell
from tianji_cli.bench.systems.base import SystemOptions
from tianji_cli.bench.systems.convert import to_trace
from tianji_cli.bench.systems.raw import Steps, decode
from tianji_cli.bench.systems.registry import SYSTEMS_BY_NAME
from tianji_cli.bench.systems.tianji import experiment_of
from tianji_cli.bench.tasks.env_check import find_env_problems
from tianji_cli.bench.tasks.suite import load_suite

DRIVERS = REPOSITORY / "tianji_cli" / "bench" / "systems" / "drivers"
TASKS = ("spread", "spread-mpe2")


@pytest.fixture
def counted_team(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The module, imported as RLlib's interpreter does."""
    monkeypatch.setenv("TIANJI_BENCH_RAW", str(tmp_path))
    monkeypatch.syspath_prepend(str(DRIVERS))
    for stale in {path.stem for path in DRIVERS.glob("*.py")} & sys.modules.keys():
        monkeypatch.delitem(sys.modules, stale)
    yield importlib.import_module("counted_team")
    for recorder in sys.modules["recorder"]._of_process.values():
        recorder.close()


@pytest.mark.parametrize("task_name", TASKS)
def test_a_baselines_team_counts_its_steps_and_returns_and_sees_numbers(
    counted_team, tmp_path, task_name
):
    env_section = msgspec.to_builtins(load_suite("marl").tasks[task_name].env)
    env = counted_team.make_counted_team(env_section)
    names = env.possible_agents
    assert names == ["agent_0", "agent_1", "agent_2"]
    observations, _ = env.reset(seed=3)
    total, length = 0.0, 0
    while env.agents:
        for number, name in enumerate(names):
            assert env.observation_space(name).contains(observations[name])
            assert observations[name].shape == (21,)
            assert (observations[name][18:] == np.eye(3)[number]).all()
        observations, rewards, *_ = env.step(dict.fromkeys(names, 1))
        total, length = total + sum(rewards.values()), length + 1
    env.reset()
    sys.modules["recorder"].recorder_of_process().flush()
    (path,) = tmp_path.glob("env-*.jsonl")
    records = [json.loads(line) for line in path.read_text().splitlines()]
    (episode,) = [record for record in records if record["kind"] == "episode"]
    assert (episode["length"], length) == (25, 25)
    assert episode["episode_return"] == pytest.approx(total)
    steps = [record for record in records if record["kind"] == "steps"][-1]
    assert (steps["total"], steps["agent_total"]) == (25, 75)


def test_agent_steps_are_counted_beside_those_of_the_team():
    lines = [
        f'{{"kind": "steps", "t": {t}, "total": {100 * t}, "agent_total": {300 * t}}}'
        for t in range(11)
    ]
    rows = to_trace([decode(line.encode(), "env-1") for line in lines], 0.0)
    assert [row.agent_steps for row in rows if isinstance(row, Production)] == [0, *[300] * 10]
    figures = measure(rows, load_suite("marl").tasks["spread"])
    assert figures.collect_per_s == pytest.approx(100)
    assert figures.agent_steps_per_s == pytest.approx(300)
    alone = to_trace([Steps(t=t, source="env-1", total=100 * t) for t in range(11)], 0.0)
    assert measure(alone, load_suite("marl").tasks["spread"]).agent_steps_per_s is None


@pytest.mark.parametrize("task_name", TASKS)
def test_tianjis_experiment_is_the_task(tmp_path, task_name):
    task = load_suite("marl").tasks[task_name]
    job = Cell(task=task_name, system="tianji", seed=4).job(task, tmp_path)
    path = tmp_path / "experiment.json"
    path.write_bytes(msgspec.json.encode(experiment_of(job)))
    experiment, _ = load_experiment(path)
    assert (experiment.algorithm_name, experiment.env.id) == ("ippo", task.env.id)
    assert experiment.agents in (None, "shared")
    assert (experiment.actors, experiment.staleness.max_lag) == (2, 1)
    config = msgspec.structs.asdict(read_config(experiment))
    assert config.items() >= msgspec.structs.asdict(task.algorithm).items()


def test_both_tasks_differ_in_the_environment_only():
    own, by_mpe2 = (load_suite("marl").tasks[name] for name in TASKS)
    assert own.env != by_mpe2.env
    assert msgspec.structs.replace(by_mpe2, env=own.env) == own


def test_only_tasks_of_teams_need_the_packages_of_teams():
    rllib = SYSTEMS_BY_NAME["rllib"]
    alone, team = (list(load_suite(name).tasks.values()) for name in ("smoke", "marl"))
    assert not {"pettingzoo", "mpe2"} & set(rllib.modules_for(alone))
    assert set(rllib.modules_for([*alone, *team])) == {*rllib.modules, "pettingzoo", "mpe2"}


def test_systems_are_looked_for_with_the_tasks_that_they_run(tmp_path):
    asked = {}

    class Asked(FakeSystem):
        def prepare(self, options, tasks=()):
            asked[self.name] = list(tasks)
            return super().prepare(options)

    suite = load_suite("marl")
    systems = [Asked(name, "good") for name in ("rllib", "sb3")]
    find_systems(systems, SystemOptions(tmp_path), suite, skip_missing=False, say=print)
    assert asked == {"rllib": list(suite.tasks.values()), "sb3": []}


def test_the_parity_table_says_what_steps_the_environment():
    task = load_suite("marl").tasks["spread"]
    rows = {name: SYSTEMS_BY_NAME[name].parity(task) for name in task.systems}
    notes = {name: {row.setting: row for row in table} for name, table in rows.items()}
    assert "all copies as arrays" in notes["tianji"]["environment"].note
    assert "ParallelPettingZooEnv" in notes["rllib"]["environment"].note
    assert notes["rllib"]["policies"].wanted == "one, shared by all agents, which see their number"
    assert notes["rllib"]["minibatch_steps"].match == "different"
    assert "a sample without loss" in notes["rllib"]["minibatch_steps"].note
    assert "only resets an environment" in notes["tianji"]["batch_steps"].note
    by_mpe2 = load_suite("marl").tasks["spread-mpe2"]
    (environment,) = [
        row for row in SYSTEMS_BY_NAME["tianji"].parity(by_mpe2) if row.setting == "environment"
    ]
    assert (environment.match, environment.note) == ("equal", "")


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("env.id=Pendulum-v1", "ippo is for several agents"),
        ("algorithm.name=ppo", "ppo is for one agent here"),
        ("env.clip_reward=true", "a team's rewards are not clipped"),
        ("algorithm.minibatch_steps=300", "300 does not divide the batch"),
    ],
)
def test_what_does_not_suit_a_team_is_refused(setting, words):
    with pytest.raises(ConfigError, match=words):
        load_suite("marl", [f"tasks.spread.{setting}"])


@pytest.mark.parametrize(
    ("system", "words"),
    [
        ("single-process", "single process has no IPPO"),
        ("sample-factory", "Sample Factory is not set up for several agents here"),
        ("sb3", "SB3 has no IPPO"),
        ("rejax", "rejax has no IPPO"),
        ("xingtian", "XingTian is not set up for several agents here"),
    ],
)
def test_other_systems_have_no_teams(system, words):
    assert SYSTEMS_BY_NAME[system].refusal(load_suite("marl").tasks["spread"]) == words


def test_environments_of_teams_are_tried_before_anything_starts():
    known = [task.env.id for task in load_suite("marl").tasks.values()]
    broken, missing = find_env_problems(
        [*known, "pettingzoo:mpe2.nothing_v1", "mpe2.nothing_v1:env"]
    )
    assert "mpe2.nothing_v1" in broken.problem
    assert "mpe2.nothing_v1" in missing.problem
