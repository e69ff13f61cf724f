"""A suite of one's own: environments from a module, tasks from an experiment file."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import ConfigError
from tianji_cli.bench.comparison.harness import check_environments
from tianji_cli.bench.tasks.env_check import EnvProblem, find_env_problems
from tianji_cli.bench.tasks.suite import load_suite
from tianji_cli.bench.tasks.work import BenchPpo

SUITE = """
name: mine
summary: one task
seeds: 1
tasks:
  t:
    experiment: {experiment}
    env: {{id: "own_bench_envs:OwnBench-v0"}}
    algorithm: {{learning_rate: 1e-2}}
    budget_s: 20
    peers: {{tianji: {{}}}}
"""
MODULE = """
import gymnasium
from gymnasium.envs.classic_control import CartPoleEnv

print("words of a module")
gymnasium.register("OwnBench-v0", CartPoleEnv)
gymnasium.register("Broken-v0", lambda: 1 / 0)
"""


def written(directory: Path, experiment: str = "cartpole_ppo") -> str:
    path = directory / "mine.yaml"
    path.write_text(SUITE.format(experiment=experiment))
    return str(path)


def test_a_task_takes_from_an_experiment_what_it_does_not_say(tmp_path: Path):
    task = load_suite(written(tmp_path), ["tasks.t.workers=5"]).tasks["t"]
    assert isinstance(task.algorithm, BenchPpo)
    assert (task.algorithm.learning_rate, task.algorithm.batch_steps) == (0.01, 400)
    assert (task.env.id, task.workers) == ("own_bench_envs:OwnBench-v0", 5)
    assert (task.envs_per_worker, task.rollout_steps, task.max_lag) == (8, 50, 1)
    assert (task.threshold, task.budget_s) == (475, 20)
    assert task.network.hidden_sizes == (64, 64)


def test_an_experiment_that_others_cannot_do_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="not set up for apex") as error:
        load_suite(written(tmp_path, "cartpole_apex"))
    assert error.value.where.endswith("mine.yaml:7: tasks.t.experiment")
    with pytest.raises(ConfigError, match=r"env\.wrappers: other systems do not apply wrappers"):
        load_suite(written(tmp_path, "minigrid_doorkey_ppo"))
    own = tmp_path / "remembers.yaml"
    own.write_text(
        "version: 1\nname: own\nenv: {id: CartPole-v1}\nalgorithm: {name: ppo}\n"
        "network: {core: {name: gru, size: 8}}\nstop: {env_steps: 100}\n"
    )
    with pytest.raises(ConfigError, match=r"network\.core: other systems are not set up"):
        load_suite(written(tmp_path, str(own)))
    own.write_text(
        "version: 1\nname: own\nenv: {id: CartPole-v1}\nalgorithm: {name: ppo}\n"
        "init_from: former@best\nstop: {env_steps: 100}\n"
    )
    with pytest.raises(ConfigError, match="init_from: all systems start with initial weights"):
        load_suite(written(tmp_path, str(own)))
    own.write_text(
        "version: 1\nname: own\nenv: {id: CartPole-v1}\nalgorithm: {name: ppo}\n"
        "staleness: {max_lag: auto}\nstop: {env_steps: 100}\n"
    )
    with pytest.raises(ConfigError, match=r"staleness\.max_lag: .* needs a number"):
        load_suite(written(tmp_path, str(own)))
    with pytest.raises(ConfigError, match="no such file"):
        load_suite(written(tmp_path, "nowhere"))


@pytest.mark.parametrize("name", ["sac", "td3"])
def test_continuous_control_is_taken_from_an_experiment(tmp_path: Path, name: str):
    settings = ["tasks.t.env.id=Pendulum-v1", "tasks.t.threshold=-200"]
    suite = load_suite(written(tmp_path, f"pendulum_{name}"), settings)
    task = suite.tasks["t"]
    assert (task.algorithm_name, task.algorithm.batch_size) == (name, 256)
    assert task.network.activation == "relu"


def test_an_environment_whose_extra_is_missing_says_how_to_get_it(tmp_path: Path, monkeypatch):
    words = 'MuJoCo is not installed, run `pip install "gymnasium[mujoco]"`'
    monkeypatch.setattr(
        "tianji_cli.bench.comparison.harness.find_env_problems",
        lambda ids: [EnvProblem(ids[0], words)],
    )
    with pytest.raises(ConfigError) as error:
        check_environments(load_suite(written(tmp_path)))
    assert error.value.fix == "pip install 'tianji-rl[mujoco]'"


def test_every_environment_is_made_before_anything_starts(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    suite = load_suite(written(tmp_path))
    with pytest.raises(ConfigError, match="No module named 'own_bench_envs'") as error:
        check_environments(suite)
    assert error.value.where == "tasks.t.env.id"
    (tmp_path / "own_bench_envs.py").write_text(MODULE)
    check_environments(suite)
    ids = ["own_bench_envs:Broken-v0", "Nope-v0", "CartPole-v1"]
    broken, unknown = find_env_problems(ids)
    assert "ZeroDivisionError" in broken.problem
    assert unknown.problem.startswith("unknown environment 'Nope-v0'")


def test_a_directory_of_modules_can_be_named(tmp_path: Path, monkeypatch):
    (tmp_path / "own_bench_envs.py").write_text(MODULE)
    monkeypatch.setenv("TIANJI_MODULES", str(tmp_path))
    assert find_env_problems(["own_bench_envs:OwnBench-v0"]) == []
