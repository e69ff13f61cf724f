"""Episodes of a trained policy are those of an evaluator."""

from __future__ import annotations

import copy
import dataclasses
import random
from pathlib import Path
from typing import Any

import gymnasium
import msgspec
import numpy as np
import pytest
import torch
from space_envs import ENV_ID

from engine.blueprint import make_blueprint
from engine.envs.rendering import make_rendered_env
from engine.envs.torch_envs import TORCH_ENVIRONMENTS
from engine.envs.torch_pendulum import TorchPendulum
from engine.errors import ConfigError
from engine.executors.evaluator import EvaluatorExecutor
from engine.layers.flat import flatten
from engine.roles.commands import Evaluate, LoadWeights
from engine.roles.events import Evaluated
from engine.rollout import Weights
from engine.spec import CoreSpec, EnvSpec, EvaluationSpec, NetworkSpec
from engine.testing import make_experiment
from engine.trained.episodes import PlayedEpisode, PlayRules, play_group, play_rendered
from engine.trained.load import Trained, load_trained
from engine.trained.run import read_trained
from tests.helpers.engine.trained_runs import write_run

RENDERED, ENDLESS, GLOBAL = "Rendered-v0", "Endless-v0", "Global-v0"


class Rendered(gymnasium.Env[Any, Any]):
    """Episodes of a length, and with rewards, that its seed decides."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}  # noqa: RUF012
    observation_space = gymnasium.spaces.Box(-9, 9, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, render_mode: str | None = None, is_endless: bool = False) -> None:
        self.render_mode = render_mode
        self.is_endless = is_endless

    def draw(self) -> float:
        return float(self.np_random.normal())

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._left = 5 + int(abs(self.draw()) * 9)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self._left -= 1
        seen = np.clip([self.draw(), self.draw()], -9, 9).astype(np.float32)
        is_over = self._left == 0 and not self.is_endless
        return seen, self.draw() * (1 + int(action)), is_over, False, {}

    def render(self):
        return np.full((4, 4, 3), max(self._left, 0), np.uint8)


class Global(Rendered):
    """Draws from the generator of the process, whatever its seed."""

    def draw(self) -> float:
        return random.gauss(0, 1) + float(np.random.normal())


@pytest.fixture(autouse=True)
def _environments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gymnasium.envs.registration.registry", dict(gymnasium.registry))
    gymnasium.register(RENDERED, entry_point=Rendered)
    gymnasium.register(ENDLESS, entry_point=Rendered, kwargs={"is_endless": True})
    gymnasium.register(GLOBAL, entry_point=Global)


def trained_in(root: Path, env: EnvSpec, core: str = "") -> Trained:
    """With weights that choose different actions in different states."""
    layer = CoreSpec(name=core, size=6) if core else None  # type: ignore[arg-type]
    network = NetworkSpec(hidden_sizes=(64, 64), core=layer)
    experiment = msgspec.structs.replace(make_experiment(env=env), network=network)
    trained = load_trained(read_trained(write_run(root / "run", experiment)))
    generator = torch.Generator().manual_seed(3)
    for parameter in trained.network.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data.add_(noise.to(parameter.dtype), alpha=0.5)
    return trained


def evaluated(trained: Trained, episodes: int, seed: int) -> Evaluated:
    """What the run's own evaluator reports of these weights."""
    blueprint = make_blueprint(trained.experiment, rehearses=True)
    executor = EvaluatorExecutor(blueprint, EvaluationSpec(episodes=episodes, seed=seed))
    vector = flatten(copy.deepcopy(trained.network)).vector.detach().numpy()
    executor.perform(LoadWeights(Weights(7, vector.view(np.uint8))))
    executor.perform(Evaluate())
    (event,) = executor.advance(float("inf"))
    executor.close()
    assert isinstance(event, Evaluated)
    return event


def played(trained: Trained, episodes: int, seed: int, **rules: bool | int) -> list[PlayedEpisode]:
    steps = play_group(trained, episodes, seed, PlayRules(**rules))
    return sorted(one for ended in steps for one in ended)


@pytest.mark.parametrize(
    ("env", "core"),
    [
        (EnvSpec(id="CartPole-v1"), ""),
        (EnvSpec(id="Pendulum-v1", squash_actions=True), ""),
        (EnvSpec(id="Pendulum-v1", scale_actions=False), ""),
        (EnvSpec(id=RENDERED, num_envs=4, num_splits=2, reward_scale=0.01), "gru"),
        (EnvSpec(id=RENDERED, clip_reward=True, life_loss_terminates=True), ""),
        (EnvSpec(id=RENDERED, wrappers=({"name": "ClipReward", "max_reward": 0.5},)), "lstm"),
        (EnvSpec(id=ENV_ID, kwargs={"action": "nested (hybrid)", "mask": "info"}), "lstm"),
        (EnvSpec(id=ENV_ID, kwargs={"observation": "nested", "mask": "observation"}), ""),
    ],
    ids=lambda value: getattr(value, "id", value),
)
def test_a_group_is_an_evaluation_of_the_run(tmp_path: Path, env: EnvSpec, core: str):
    trained = trained_in(tmp_path, env, core)
    expected = evaluated(trained, 6, 40)
    found = played(trained, 6, 40)
    assert [one.number for one in found] == list(range(6))
    assert tuple(one.episode_return for one in found) == expected.returns
    assert tuple(one.length_env_steps for one in found) == expected.lengths_env_steps
    assert len({one.episode_return for one in found}) > 1


def test_an_environment_of_tensors_is_played_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    name = "Tensors-v0"
    monkeypatch.setitem(TORCH_ENVIRONMENTS, name, TorchPendulum)
    trained = trained_in(tmp_path, EnvSpec(id="Pendulum-v1"))
    env = msgspec.structs.replace(trained.experiment.env, id=name)
    experiment = msgspec.structs.replace(trained.experiment, env=env)
    of_tensors = dataclasses.replace(trained, experiment=experiment)
    found = played(of_tensors, 4, 9)
    assert [one.length_env_steps for one in found] == [200] * 4
    assert all(-2000 < one.episode_return < 0 for one in found)
    assert played(of_tensors, 4, 9) == found
    with pytest.raises(ConfigError, match="it has only a version of tensors"):
        make_rendered_env(env)


def test_emulated_latency_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    trained = trained_in(tmp_path, EnvSpec(id=RENDERED, step_latency_ms=1.0))
    monkeypatch.setattr("engine.envs.make.time.sleep", lambda _: pytest.fail("it slept"))
    assert len(played(trained, 2, 0)) == 2


def test_each_episode_starts_from_a_seed_of_its_own(tmp_path: Path):
    trained = trained_in(tmp_path, EnvSpec(id=RENDERED))
    lengths = [one.length_env_steps for one in played(trained, 6, 40)]
    assert [one.length_env_steps for one in played(trained, 3, 43)] == lengths[3:]


@pytest.mark.parametrize("name", [RENDERED, GLOBAL])
@pytest.mark.parametrize("is_sampled", [False, True])
def test_equal_seeds_give_equal_episodes(tmp_path: Path, name: str, is_sampled: bool):
    trained = trained_in(tmp_path, EnvSpec(id=name))
    first = played(trained, 4, 9, is_sampled=is_sampled)
    random.seed(1)
    assert played(trained, 4, 9, is_sampled=is_sampled) == first
    assert played(trained, 4, 10, is_sampled=is_sampled) != first


def test_sampled_actions_are_others(tmp_path: Path):
    trained = trained_in(tmp_path, EnvSpec(id=RENDERED))
    greedy, sampled = (played(trained, 4, 9, is_sampled=value) for value in (False, True))
    assert [one.length_env_steps for one in greedy] == [one.length_env_steps for one in sampled]
    assert greedy != sampled


def test_an_episode_without_end_is_ended_at_the_limit(tmp_path: Path):
    trained = trained_in(tmp_path, EnvSpec(id=ENDLESS))
    found = played(trained, 2, 0, max_env_steps=17)
    assert [(one.length_env_steps, one.ended_by) for one in found] == [(17, "limit")] * 2
    short = trained_in(tmp_path / "short", EnvSpec(id=RENDERED))
    ends = {one.length_env_steps: one.ended_by for one in played(short, 8, 0, max_env_steps=9)}
    assert ends[9] == "limit"
    assert {how for length, how in ends.items() if length < 9} == {"terminated"}


def test_a_rendered_episode_is_the_first_of_its_seed(tmp_path: Path):
    trained = trained_in(tmp_path, EnvSpec(id=RENDERED, num_envs=8), "gru")
    env = make_rendered_env(trained.experiment.env)
    for seed in (5, 6, 5):
        (one,) = played(trained, 1, seed)
        pictures, last = [], None
        for moment in play_rendered(trained, env, seed, PlayRules()):
            pictures.append(int(env.frame()[0, 0, 0]))
            last = moment
        assert last is not None
        assert (last.episode_return, last.length_env_steps) == one[1:3]
        assert last.ended_by == "terminated"
        assert pictures == list(range(one.length_env_steps, -1, -1))
    env.close()
