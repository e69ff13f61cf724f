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
from tests.helpers.paths import REPOSITORY
from tianji_cli.bench.comparison.measure import measure
from tianji_cli.bench.comparison.results import Cell
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


def test_the_suite_is_the_work_of_spread_ippo(tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text(
        "version: 1\nname: own\nsummary: own\nseeds: 1\n"
        "tasks: {t: {experiment: spread_ippo, threshold: -60, budget_s: 60, peers: {tianji: {}}}}\n"
    )
    experiment, suite = load_suite(str(own)).tasks["t"], load_suite("marl").tasks["spread"]
    for name in ("env", "algorithm", "network", "rollout_steps", "max_lag"):
        assert getattr(experiment, name) == getattr(suite, name)
    num_envs = [task.workers * task.envs_per_worker for task in (experiment, suite)]
    assert num_envs == [64, 64]
    by_mpe2 = load_suite("marl").tasks["spread-mpe2"]
    assert msgspec.structs.replace(by_mpe2, env=suite.env) == suite


def test_the_parity_table_says_what_steps_the_environment():
    task = load_suite("marl").tasks["spread"]
    rows = {name: SYSTEMS_BY_NAME[name].parity(task) for name in task.systems}
    notes = {name: {row.setting: row for row in table} for name, table in rows.items()}
    assert "all copies as arrays" in notes["tianji"]["environment"].note
    assert "ParallelPettingZooEnv" in notes["rllib"]["environment"].note
    assert notes["rllib"]["policies"].wanted == "one, shared by all agents, which see their number"
    assert notes["rllib"]["minibatch_steps"].match == "equal"
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


@pytest.mark.parametrize("system", ["single-process", "sample-factory", "sb3", "rejax", "xingtian"])
def test_other_systems_have_no_teams(system):
    assert SYSTEMS_BY_NAME[system].refusal(load_suite("marl").tasks["spread"])


def test_environments_of_teams_are_tried_before_anything_starts():
    known = [task.env.id for task in load_suite("marl").tasks.values()]
    broken, missing = find_env_problems(
        [*known, "pettingzoo:mpe2.nothing_v1", "mpe2.nothing_v1:env"]
    )
    assert "mpe2.nothing_v1" in broken.problem
    assert "mpe2.nothing_v1" in missing.problem
