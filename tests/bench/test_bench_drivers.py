"""Our files that run inside baselines: environments, networks, and the hooks into XingTian."""

from __future__ import annotations

import importlib
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import msgspec
import numpy as np
import pytest
import torch

from engine.envs.make import make_vector_env
from engine.layers.trunks import build_trunk
from engine.spec import EnvSpec, NetworkSpec
from tests.helpers.paths import REPOSITORY
from tianji_cli.bench.tasks.suite import load_suite
from tianji_cli.bench.tasks.work import BenchNetwork

DRIVERS = REPOSITORY / "tianji_cli" / "bench" / "systems" / "drivers"


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Imports a driver's module as its own interpreter does."""
    monkeypatch.setenv("TIANJI_BENCH_RAW", str(tmp_path))
    monkeypatch.syspath_prepend(str(DRIVERS))

    def load(name: str) -> ModuleType:
        for stale in {path.stem for path in DRIVERS.glob("*.py")} & sys.modules.keys():
            monkeypatch.delitem(sys.modules, stale)
        return importlib.import_module(name)

    yield load
    for recorder in getattr(sys.modules.get("recorder"), "_of_process", {}).values():
        recorder.close()


def records(directory: Path, kind: str) -> list[dict[str, float]]:
    lines = [line for path in directory.glob("*.jsonl") for line in path.read_text().splitlines()]
    return [record for record in map(json.loads, lines) if record["kind"] == kind]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("name", "shape"),
    [("mlp", (4,)), ("nature_cnn", (4, 84, 84)), ("minatar_cnn", (4, 10, 10))],
)
def test_baselines_get_the_network_that_tianji_has(driver, name, shape, precision):
    spec = BenchNetwork(name=name, precision=precision)
    theirs, num_features = driver("torch_nets").trunk(msgspec.to_builtins(spec), shape)
    ours, wanted = build_trunk(shape, NetworkSpec(name=name, precision=precision))
    assert num_features == wanted
    sizes = [[tuple(p.shape) for p in net.parameters()] for net in (theirs, ours)]
    assert sizes[0] == sizes[1]
    batch = torch.rand(3, *shape, generator=torch.Generator().manual_seed(0))
    batch = (255 * batch).to(torch.uint8) if name == "nature_cnn" else batch
    features = theirs(batch)
    assert (features.shape, features.dtype) == ((3, num_features), torch.float32)
    if name != "mlp":
        is_rounded = torch.equal(features, features.to(torch.bfloat16).float())
        assert is_rounded == (precision == "bfloat16")


@pytest.mark.parametrize(
    ("package", "env_id", "shape"),
    [
        ("ale_py", "ALE/Pong-v5", (4, 84, 84)),
        ("ale_py", "ALE/Assault-v5", (4, 84, 84)),
        ("minatar", "MinAtar/Breakout-v1", (4, 10, 10)),
    ],
)
def test_a_baselines_environment_is_tianjis(driver, package, env_id, shape):
    pytest.importorskip(package)
    env = driver("counted_env").make_counted({"id": env_id, "clip_reward": False})
    ours = make_vector_env(EnvSpec(id=env_id, num_envs=1))
    assert env.observation_space.shape == shape
    assert env.action_space.n == ours.single_action_space.n
    assert math.prod(shape) == math.prod(ours.single_observation_space.shape)
    observation, _ = env.reset(seed=1)
    assert env.observation_space.contains(observation)
    assert env.observation_space.contains(env.step(0)[0])
    ours.close()
    env.close()


def as_job(suite: str, task: str):
    return msgspec.to_builtins(load_suite(suite).tasks[task])


def test_sb3_gets_the_tasks_settings(driver):
    settings = driver("sb3_settings").SETTINGS
    ppo = settings["ppo"](as_job("cartpole", "ppo-400"), 16)
    assert (ppo["n_steps"], ppo["batch_size"], ppo["n_epochs"]) == (25, 200, 8)
    dqn = settings["dqn"](as_job("cartpole", "dqn"), 8)
    assert (dqn["train_freq"], dqn["gradient_steps"]) == (1, 2)  # 2 x 32 samples for 8 env steps
    assert dqn["target_update_interval"] == 2000  # 500 optimiser steps of 32 at a ratio of 8
    sac = settings["sac"](as_job("continuous", "hopper-sac"), 1)
    assert (sac["train_freq"], sac["gradient_steps"], sac["ent_coef"]) == (1, 1, "auto")
    td3 = settings["td3"](as_job("continuous", "hopper-td3"), 1)
    assert (td3["policy_delay"], td3["target_policy_noise"]) == (2, 0.2)


@pytest.mark.parametrize(("num_envs", "expected"), [(1, (4, 1)), (4, (1, 1)), (6, (2, 3))])
def test_sb3_gets_the_replay_ratio_in_whole_numbers(driver, num_envs, expected):
    hp = as_job("cartpole", "dqn")["algorithm"]
    settings = driver("sb3_settings").replay_settings(hp, num_envs)
    assert (settings["train_freq"], settings["gradient_steps"]) == expected


def test_rejax_gets_the_tasks_settings(driver):
    settings = driver("rejax_settings").SETTINGS
    ppo = settings["ppo"](as_job("cartpole", "ppo-400"), 16)
    assert (ppo["num_steps"], ppo["num_minibatches"], ppo["vf_coef"]) == (25, 2, 1.0)
    dqn = settings["dqn"](as_job("cartpole", "dqn"), 8)
    assert (dqn["num_epochs"], dqn["target_update_freq"], dqn["polyak"]) == (2, 2000, 0.0)
    sac = settings["sac"](as_job("continuous", "pendulum-sac"), 1)
    assert (sac["num_epochs"], sac["polyak"]) == (1, 0.995)


@pytest.mark.parametrize("name", ["sac", "td3"])
def test_a_plain_loop_in_a_box_makes_the_steps_that_are_due(driver, tmp_path, name):
    task = as_job("continuous", "hopper-td3")
    task["env"]["id"] = "Pendulum-v1"
    task["network"]["hidden_sizes"] = [8]
    task["algorithm"] |= {"min_replay_size": 4, "batch_size": 8, "replay_ratio": 4.0, "name": name}
    loop = driver(f"single_process_{name}").Loop(task, 0)
    before = [parameter.clone() for parameter in loop.policy.parameters()]
    for _ in range(12):
        loop.advance()
    assert (loop.num_steps, loop.num_samples, loop.num_updates) == (12, 32, 4)
    observation = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert loop.act(10 * observation).abs().max() <= 1
    changed = zip(before, loop.policy.parameters(), strict=True)
    assert not any(torch.equal(old, new) for old, new in changed)
    loop.envs.close()


def task_of(algorithm: str) -> dict[str, object]:
    """A small task of the plain loops."""
    suite, name = {"ppo": ("cartpole", "ppo-400"), "dqn": ("cartpole", "dqn")}.get(
        algorithm, ("continuous", "hopper-td3")
    )
    task = as_job(suite, name)
    task["network"]["hidden_sizes"] = [8]
    if algorithm != "ppo":
        sizes = {"min_replay_size": 32, "batch_size": 8, "replay_ratio": 1.0}
        task["algorithm"] |= {**sizes, "name": algorithm}
    if algorithm in ("sac", "td3"):
        task["env"]["id"] = "Pendulum-v1"
    return task


def weights_after(loop, num_updates: int) -> list[torch.Tensor]:
    while loop.num_updates < num_updates:
        loop.advance()
    loop.envs.close()
    modules = (each for each in vars(loop).values() if isinstance(each, torch.nn.Module))
    return [parameter.detach() for each in modules for parameter in each.parameters()]


@pytest.mark.parametrize("name", ["ppo", "dqn", "sac", "td3"])
def test_a_compiled_loop_calls_what_is_compiled(driver, monkeypatch, name):
    called = set()

    def compiled(function):
        def call(*arguments):
            called.add(function.__name__)
            return function(*arguments)

        return call

    task = task_of(name)
    monkeypatch.setattr(torch, "compile", compiled)
    made = driver("compiled_loop")
    weights = weights_after(made.make_loop(task, 0), 4)
    make_plain, names = made.LOOPS[name]
    assert called == set(names)
    plain = weights_after(make_plain(task, 0), 4)
    torch.testing.assert_close(weights, plain, rtol=0, atol=0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the compiler, which is PyTorch's own
def test_a_compiled_loop_learns_what_the_plain_one_learns(driver):
    """DQN, whose compiled functions draw nothing at random."""
    task = task_of("dqn")
    made = driver("compiled_loop")
    compiled = weights_after(made.make_loop(task, 0), 4)
    plain = weights_after(made.LOOPS["dqn"][0](task, 0), 4)
    torch.testing.assert_close(compiled, plain, rtol=0, atol=1e-5)


def test_the_plain_sacs_log_probabilities_are_those_of_its_actions(driver):
    task = as_job("continuous", "pendulum-sac")
    loop = driver("single_process_sac").Loop(task, 0)
    observation = torch.randn(32, 3)
    with torch.no_grad():
        action, log_prob = loop.sample(observation)
        mean, log_std = loop.policy(observation).chunk(2, -1)
        normal = torch.distributions.Normal(mean, log_std.exp())
        squashed = torch.distributions.TransformedDistribution(
            normal, [torch.distributions.TanhTransform()]
        )
        expected = squashed.log_prob(action.clamp(-1 + 1e-6, 1 - 1e-6)).sum(-1)
    torch.testing.assert_close(log_prob, expected, rtol=1e-3, atol=1e-3)
    loop.envs.close()


def test_rewards_are_counted_before_they_are_clipped(driver, tmp_path):
    gymnasium = pytest.importorskip("gymnasium")
    counted_env = driver("counted_env")

    class Rich(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(0.0, 1.0, (1,), np.float32)
        action_space = gymnasium.spaces.Discrete(2)

        def reset(self, *, seed=None, options=None):
            return np.zeros(1, np.float32), {}

        def step(self, action):
            return np.zeros(1, np.float32), 7.0, True, False, {}

    env = counted_env.ClippedReward(counted_env.CountedEnv(Rich()))
    env.reset()
    assert env.step(0)[1] == 1.0
    sys.modules["recorder"].recorder_of_process().flush()
    (episode,) = records(tmp_path, "episode")
    assert (episode["episode_return"], episode["length"]) == (7.0, 1)


FAKE_XINGTIAN = {
    "gym/__init__.py": """
class Wrapper:
    def __init__(self, env): self.env = env
class Game:
    def __init__(self): self.t = 0
    def reset(self): self.t = 0; return 0
    def step(self, action):
        self.t += 1
        return 0, 2.0, self.t % 5 == 0, {"real_done": self.t % 10 == 0}
def make(name): return Game()
""",
    "xt/__init__.py": "",
    "xt/environment/__init__.py": "",
    "xt/environment/gym/__init__.py": "",
    "xt/environment/gym/atari_wrappers.py": """
import gym
class Real:
    def __init__(self, env): self.env, self.real_done = env, True
    def reset(self): return self.env.reset() if self.real_done else 0
    def step(self, action):
        result = self.env.step(action)
        self.real_done = result[3]["real_done"]
        return result
def make_atari(env_info): return Real(gym.make(env_info["name"]))
""",
    "xt/framework/__init__.py": "",
    "xt/framework/learner.py": """
class Algorithm:
    def train(self, **options): return 0.5
class TrainWorker:
    def __init__(self, alg): self.alg, self.actual_step = alg, 64
""",
}


def test_xingtian_is_counted_where_its_modules_are_imported(tmp_path):
    for name, text in FAKE_XINGTIAN.items():
        path = tmp_path / "site" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    raw = tmp_path / "raw"
    raw.mkdir()
    (tmp_path / "job.json").write_text('{"task": {"algorithm": {"name": "dqn", "batch_size": 32}}}')
    script = """
from xt.environment.gym.atari_wrappers import make_atari
from xt.framework.learner import Algorithm, TrainWorker
env = make_atari({"name": "PongNoFrameskip-v4"})
env.reset()
for _ in range(20):
    if env.step(0)[2]:
        env.reset()
worker = TrainWorker(Algorithm())
assert [worker.alg.train(episode_num=1) for _ in range(2)] == [0.5, 0.5]
import recorder
recorder.recorder_of_process().flush()
"""
    folders = (DRIVERS / "xingtian_site", tmp_path / "site")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, folders)),
        "TIANJI_BENCH_RAW": str(raw),
    }
    subprocess.run([sys.executable, "-c", script], env=environment, check=True, timeout=60)
    assert [record["total"] for record in records(raw, "steps")][-1] == 20
    episodes = [(r["episode_return"], r["length"]) for r in records(raw, "episode")]
    assert episodes == [(20.0, 10), (20.0, 10)]  # a lost life in the middle ends none
    trained = [(r["env_steps"], r["samples"], r["updates"]) for r in records(raw, "trained")]
    assert trained == [(64, 32, 1), (64, 64, 2)]


def test_the_plain_loop_learns_with_actions_of_a_box(driver):
    task = as_job("continuous", "hopper-ppo")
    task |= {"env": {"id": "Pendulum-v1", "clip_reward": False}, "rollout_steps": 16}
    task["algorithm"] |= {"batch_steps": 64, "minibatch_steps": 16, "num_epochs": 2}
    loop = driver("single_process_ppo").Loop(task, 0)
    space, taken = loop.envs.single_action_space, []
    step = loop.envs.step

    def watched(actions):
        taken.extend(actions)
        return step(actions)

    loop.envs.step = watched
    first = [parameter.detach().clone() for parameter in loop.network.parameters()]
    loop.advance()
    assert (loop.num_steps, loop.num_samples, loop.num_updates) == (64, 128, 8)
    assert len(taken) == 64
    assert all(space.contains(action) for action in taken)
    assert not any(map(torch.equal, first, loop.network.parameters()))
    loop.envs.close()
