"""Environments: how they are made, restart, and hide their differences."""

from __future__ import annotations

import importlib.util

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from engine.envs.actions.vector import RangedActions
from engine.envs.extras import install_command
from engine.envs.make import make_vector_env, register_environment, spaces_of
from engine.errors import ConfigError
from engine.spec import EnvSpec
from tests.helpers.engine.next_step_mode import check_next_step_mode

needs_atari = pytest.mark.skipif(
    importlib.util.find_spec("ale_py") is None, reason="needs the extra atari"
)
needs_minatar = pytest.mark.skipif(
    importlib.util.find_spec("minatar") is None, reason="needs the extra minatar"
)


def test_continuous_actions_are_in_units_of_their_range():
    env = make_vector_env(EnvSpec(id="Pendulum-v1", num_envs=4))
    assert isinstance(env, RangedActions)
    found = []
    inner = env.env.step
    env.env.step = lambda actions: (found.append(actions), inner(actions))[1]  # type: ignore
    env.reset(seed=0)
    env.step(np.array([[-1.0], [0.0], [0.5], [7.0]], np.float32))
    assert found[0].tolist() == [[-2.0], [0.0], [1.0], [2.0]]
    env.close()


def test_an_unbounded_range_is_left_alone():
    class Unbounded(gymnasium.Env[np.ndarray, np.ndarray]):
        observation_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
        action_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float32)

        def reset(self, *, seed=None, options=None):
            return np.zeros(1, np.float32), {}

        def step(self, action):
            return np.zeros(1, np.float32), float(action[0]), False, False, {}

    env = RangedActions(gymnasium.vector.SyncVectorEnv([Unbounded]))
    env.reset()
    assert env.step(np.array([[9.0]], np.float32))[1].tolist() == [9.0]


def test_an_own_vector_version_is_made_with_what_is_promised_whatever_limits_single_copies():
    """Gymnasium handed it `max_episode_steps`, which it had no parameter for."""

    def make(step_cost: float) -> gymnasium.Env:
        return gymnasium.make("CartPole-v1").unwrapped

    def make_vector(num_envs: int, step_cost: float) -> gymnasium.vector.VectorEnv:
        return gymnasium.vector.SyncVectorEnv([lambda: make(step_cost)] * num_envs)

    register_environment("Limited-v0", make, make_vector, max_episode_steps=3)
    try:
        env = make_vector_env(EnvSpec(id="Limited-v0", num_envs=2, kwargs={"step_cost": 1.0}))
        assert env.num_envs == 2
        single = gymnasium.make("Limited-v0", step_cost=1.0)
        single.reset(seed=0)
        assert [single.step(t % 2)[3] for t in range(3)] == [False, False, True]
    finally:
        del gymnasium.registry["Limited-v0"]


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Acrobot-v1", "Pendulum-v1"])
def test_equal_seeds_give_equal_episodes(env_id: str):
    found = []
    for _ in range(2):
        env = make_vector_env(EnvSpec(id=env_id, num_envs=3))
        observations = [env.reset(seed=5)[0]]
        env.action_space.seed(1)
        observations += [env.step(env.action_space.sample())[0] for _ in range(30)]
        found.append(np.stack(observations))
        env.close()
    np.testing.assert_array_equal(found[0], found[1])


def play(env_id: str, num_steps: int, **kwargs: bool | int) -> list[tuple[np.ndarray, ...]]:
    env = make_vector_env(EnvSpec(id=env_id, num_envs=4, kwargs=kwargs))
    assert env.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP) == AutoresetMode.NEXT_STEP
    env.reset(seed=0)
    env.action_space.seed(0)
    steps = [env.step(env.action_space.sample()) for _ in range(num_steps)]
    env.close()
    return [tuple(step[:4]) for step in steps]


@needs_minatar
@pytest.mark.parametrize(("minimal", "num_actions"), [(False, 6), (True, 3)])
def test_minatar_is_a_gymnasium_environment(minimal: bool, num_actions: int):
    env_id, kwargs = "MinAtar/Breakout-v1", {"minimal_actions": minimal}
    env = make_vector_env(EnvSpec(id=env_id, num_envs=2, kwargs=kwargs))
    spaces = spaces_of(env)
    env.close()
    assert spaces.observation.shape == (10, 10, 4)
    assert spaces.observation.dtype == np.bool_
    assert spaces.action.n == num_actions
    steps = play(env_id, 200, **kwargs)
    check_next_step_mode(steps)
    assert sum(step[1].sum() for step in steps) > 0


@needs_minatar
def test_minatar_repeats_itself_with_its_seed():
    one, other = (play("MinAtar/Breakout-v1", 60) for _ in range(2))
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a[0], b[0])


@needs_atari
def test_atari_comes_with_the_standard_preprocessing():
    env = make_vector_env(EnvSpec(id="ALE/Pong-v5", num_envs=2))
    spaces = spaces_of(env)
    env.close()
    assert spaces.observation.shape == (4, 84, 84)
    assert spaces.observation.dtype == np.uint8
    steps = play("ALE/Breakout-v5", 400, max_num_frames_per_episode=800)
    check_next_step_mode(steps)


@needs_atari
def test_atari_rewards_are_those_of_the_game():
    steps = play("ALE/Asterix-v5", 600)
    assert max(step[1].max() for step in steps) > 1, "Asterix pays 50 a piece"


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match="needs the package ale-py") as error:
        make_vector_env(EnvSpec(id="ALE/Pong-v5"))
    assert error.value.fix == install_command("atari", "ale-py")
