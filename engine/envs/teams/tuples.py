"""Gymnasium's environments whose spaces are Tuples with an entry for each agent, such as those of
Level-Based Foraging and of the multi-robot warehouse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv, VectorEnv
from gymnasium.wrappers import PassiveEnvChecker

from engine.envs.teams.returned import ByAgent
from engine.envs.teams.vector import Array
from engine.spaces.leaves import AnySpace
from engine.spaces.observations import MASK

Environment = gymnasium.Env[Any, Any]


def team_copies(env: VectorEnv[Any, Any, Any]) -> list[TupleParallel] | None:
    """The copies of a vector of Gymnasium as environments of several agents; None if each has one:
    `n_agents` says otherwise, and spaces are Tuples of as many entries."""
    if not isinstance(env, SyncVectorEnv):
        return None
    space, num_agents = env.single_action_space, getattr(env.envs[0].unwrapped, "n_agents", None)
    if not isinstance(space, spaces.Tuple) or len(space) != num_agents:
        return None
    observed = env.single_observation_space
    if not isinstance(observed, spaces.Tuple) or len(observed) != num_agents:
        return None
    return [TupleParallel(one) for one in env.envs]


class TupleParallel:
    """One such environment with PettingZoo's parallel API; its agents are `agent_0` and so on.

    Rewards and ends are given for each agent or once for all: a single reward is divided by the
    number of agents, so that their sum is what the environment gave.

    Args:
        env: Both spaces are Tuples of equal length.
    """

    def __init__(self, env: Environment) -> None:
        assert isinstance(env.observation_space, spaces.Tuple)
        assert isinstance(env.action_space, spaces.Tuple)
        self._env = env
        self._observations, self._actions = env.observation_space, env.action_space
        self.possible_agents = [f"agent_{number}" for number in range(len(self._actions))]
        self._numbers = {name: number for number, name in enumerate(self.possible_agents)}
        self.agents: list[str] = []
        self.metadata = env.metadata
        self.render_mode = env.render_mode
        self._chosen: list[Any] = [None] * len(self._actions)
        _skip_check_of_rewards(env)

    def observation_space(self, agent: str) -> AnySpace:
        return self._observations[self._numbers[agent]]

    def action_space(self, agent: str) -> AnySpace:
        return self._actions[self._numbers[agent]]

    def reset(self, seed: int | None = None) -> tuple[ByAgent, ByAgent]:
        observed, info = self._env.reset(seed=seed)
        self.agents = list(self.possible_agents)
        return self._each(observed), self._infos(info)

    def step(self, actions: ByAgent) -> tuple[ByAgent, ByAgent, ByAgent, ByAgent, ByAgent]:
        for name, action in actions.items():
            self._chosen[self._numbers[name]] = action
        observed, reward, terminated, truncated, info = self._env.step(tuple(self._chosen))
        before = self.agents
        rewards, ended, cut = (
            {name: self._each(values)[name] for name in before}
            for values in (reward, terminated, truncated)
        )
        if _is_one(reward):
            rewards = {name: value / len(rewards) for name, value in rewards.items()}
        self.agents = [name for name in before if not (ended[name] or cut[name])]
        seen = {name: value for name, value in self._each(observed).items() if name in before}
        return seen, rewards, ended, cut, self._infos(info)

    def state(self) -> Array:
        state = getattr(self._env.unwrapped, "state", None)
        if not callable(state):
            raise NotImplementedError
        return np.asarray(state())

    def render(self) -> object:
        return self._env.render()

    def close(self) -> None:
        self._env.close()

    def _each(self, values: Any) -> dict[str, Any]:  # noqa: ANN401 - a value, or one for each agent
        names = self.possible_agents
        if _is_one(values):
            return dict.fromkeys(names, values)
        return dict(zip(names, values, strict=True))

    def _infos(self, info: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """The agents' masks, where the info has one for each."""
        if MASK not in info:
            return {}
        return {name: {MASK: mask} for name, mask in self._each(info[MASK]).items()}


def _is_one(values: Any) -> bool:  # noqa: ANN401 - a value, or one for each agent
    return not isinstance(values, Sequence) and np.ndim(values) == 0


def _skip_check_of_rewards(env: Environment) -> None:
    """Tells Gymnasium's own checker, which warns of everything but one reward, that it is done."""
    while isinstance(env, gymnasium.Wrapper):
        if isinstance(env, PassiveEnvChecker):
            env.checked_step = True
        env = env.env
