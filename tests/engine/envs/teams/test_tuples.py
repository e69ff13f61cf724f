"""Gymnasium's Tuples: what is given once for all agents, and what for each."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from engine.envs.make import make_vector_env, register_environment, spaces_of
from engine.errors import ConfigError
from engine.spec import EnvSpec
from tests.helpers.engine.scripted_team import SEEN


class Pair(gymnasium.Env[Any, Any]):
    """Two agents that share one reward; masks are in the info, one for each."""

    observation_space = spaces.Tuple((SEEN, SEEN))
    action_space = spaces.Tuple((spaces.Discrete(2), spaces.Discrete(2)))

    def __init__(self, *, each: bool = False, n_agents: int = 2) -> None:
        self.n_agents, self._each = n_agents, each

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._look(), {"action_mask": ([1, 0], [0, 1])}

    def step(self, action):
        reward: Any = [1.0, 2.0] if self._each else 3.0
        terminated: Any = [True, False] if self._each else False
        self.last = action
        return self._look(), reward, terminated, False, {"action_mask": ([1, 1], [0, 1])}

    def state(self):
        return np.array([7.0], np.float32)

    def _look(self):
        return np.zeros(2, np.float32), np.ones(2, np.float32)


register_environment("Pair-v0", Pair)


@pytest.mark.parametrize("each", [False, True])
def test_a_reward_for_all_is_divided_and_others_are_not(each):
    env = make_vector_env(
        EnvSpec(id="Pair-v0", num_envs=1, central_state=True, kwargs={"each": each})
    )
    observation, info = env.reset(seed=0)
    assert info["action_mask"].tolist() == [[True, False, False, True]]
    assert observation["state"].tolist() == [[7.0]]
    observation, reward, terminated, _, info = env.step(np.array([[0, 1]]))
    assert reward.tolist() == [3.0]
    assert observation["team"]["reward"].tolist() == [[1.0, 2.0] if each else [1.5, 1.5]]
    assert observation["team"]["terminated"].tolist() == [[int(each), 0]]
    assert observation["team"]["present"].tolist() == [[int(not each), 1]]
    assert not terminated.any()
    assert info["action_mask"].tolist() == [[True, True, False, True]]


def test_what_is_said_of_an_agent_that_has_left_counts_no_more():
    env = make_vector_env(EnvSpec(id="Pair-v0", num_envs=1, kwargs={"each": True}))
    env.reset(seed=0)
    env.step(np.array([[0, 1]]))
    observation, reward, *_ = env.step(np.array([[0, 1]]))
    assert reward.tolist() == [2.0]
    assert observation["team"]["reward"].tolist() == [[0.0, 2.0]]
    assert observation["team"]["present"].tolist() == [[0, 1]]


def test_tuples_without_a_number_of_agents_are_one_agents():
    env = make_vector_env(EnvSpec(id="Pair-v0", num_envs=1, kwargs={"n_agents": 3}))
    assert spaces_of(env).team is None


def test_foraging_is_known_without_its_module():
    pytest.importorskip("lbforaging")
    assert spaces_of(make_vector_env(EnvSpec(id="Foraging-5x5-2p-1f-v3"))).team is not None
    with pytest.raises(ConfigError) as raised:
        make_vector_env(EnvSpec(id="Foraging-5x5-2p-7f-v3"))
    assert "did you mean 'Foraging-5x5-2p-" in raised.value.fix
