"""The matrix games: their payoffs, and that they restart in next-step mode."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from engine.envs.make import make_vector_env, spaces_of
from engine.envs.teams.matrix_games import CLIMBING_PAYOFFS
from engine.spec import EnvSpec


@pytest.mark.parametrize(
    ("choices", "payoff"),
    [
        *(((0, 0), (*pair, 7.0)) for pair in itertools.product(range(2), repeat=2)),
        *(((0, 1), (*pair, 7.0)) for pair in itertools.product(range(2), repeat=2)),
        *(((1, 0), outcome) for outcome in [(0, 0, 0.0), (0, 1, 1.0), (1, 0, 1.0), (1, 1, 8.0)]),
    ],
)
def test_the_first_agent_decides_what_both_play_for(choices, payoff):
    env = make_vector_env(EnvSpec(id="TwoStep-v0", num_envs=3, central_state=True))
    observation, _ = env.reset(seed=0)
    assert observation["state"].tolist() == [[1, 0, 0]] * 3
    _, reward, terminated, truncated, _ = env.step(np.array([choices] * 3))
    assert (reward.tolist(), terminated.any(), truncated.any()) == ([0.0] * 3, False, False)
    *second, value = payoff
    observation, reward, terminated, truncated, _ = env.step(np.array([second] * 3))
    assert (reward.tolist(), terminated.all(), truncated.any()) == ([value] * 3, True, False)
    assert observation["team"]["reward"].tolist() == [[value / 2] * 2] * 3
    assert observation["team"]["terminated"].tolist() == [[1, 1]] * 3
    assert observation["team"]["present"].tolist() == [[0, 0]] * 3
    observation, reward, terminated, _, _ = env.step(np.array([(1, 1)] * 3))  # only resets
    assert (reward.tolist(), terminated.any()) == ([0.0] * 3, False)
    assert observation["agents"]["agent_1"].tolist() == [[1, 0, 0]] * 3
    assert observation["team"]["present"].tolist() == [[1, 1]] * 3


def test_climbing_pays_what_the_table_says():
    pairs = list(itertools.product(range(3), repeat=2))
    env = make_vector_env(EnvSpec(id="Climbing-v0", num_envs=9))
    env.reset(seed=0)
    _, reward, terminated, _, _ = env.step(np.array(pairs))
    assert reward.tolist() == CLIMBING_PAYOFFS.reshape(-1).tolist()
    assert terminated.all()


def test_both_agents_share_a_policy_unless_they_are_separate():
    env = make_vector_env(EnvSpec(id="TwoStep-v0", num_envs=1))
    shared, separate = spaces_of(env).team, spaces_of(env, "separate").team
    assert shared is not None
    assert separate is not None
    assert [(policy.name, policy.agents) for policy in shared.policies] == [("shared", (0, 1))]
    assert [policy.name for policy in separate.policies] == ["agent_0", "agent_1"]
