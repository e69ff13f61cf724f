"""A PettingZoo environment that counts its own steps and returns, in whichever process it runs."""

from __future__ import annotations

import importlib
from typing import Any

import gymnasium
import numpy as np
from counted_env import look_in_own_modules
from pettingzoo import ParallelEnv
from pettingzoo.utils import BaseParallelWrapper
from recorder import EpisodeCounter

PETTINGZOO = "pettingzoo"
Observations = dict[str, np.ndarray]


class CountedTeam(BaseParallelWrapper):  # type: ignore[misc]
    """Passes everything through; the recorder of its process hears of each step of the team, of
    who was there, and of the sum of the agents' rewards."""

    def __init__(self, env: ParallelEnv) -> None:
        super().__init__(env)
        self._counter = EpisodeCounter()

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:  # noqa: ANN401
        self._counter.reset()
        return super().reset(seed=seed, options=options)

    def step(self, actions: dict[str, Any]) -> Any:  # noqa: ANN401 - as the environment has it
        num_agents = len(self.agents)
        result = super().step(actions)
        is_over = not self.agents
        self._counter.step(sum(result[1].values()), is_over, num_agents)
        return result


class Numbered(BaseParallelWrapper):  # type: ignore[misc]
    """Each agent's vector of observations, with its number among all agents appended, one hot."""

    def __init__(self, env: ParallelEnv) -> None:
        super().__init__(env)
        names = list(env.possible_agents)
        self._number = dict(zip(names, np.eye(len(names), dtype=np.float32), strict=True))
        self._spaces = {name: self._longer(env.observation_space(name)) for name in names}

    def observation_space(self, agent: str) -> gymnasium.spaces.Box:
        return self._spaces[agent]

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:  # noqa: ANN401
        observations, infos = super().reset(seed=seed, options=options)
        return self._with_numbers(observations), infos

    def step(self, actions: dict[str, Any]) -> Any:  # noqa: ANN401
        observations, *others = super().step(actions)
        return self._with_numbers(observations), *others

    def _with_numbers(self, observations: Observations) -> Observations:
        return {name: np.concatenate((o, self._number[name])) for name, o in observations.items()}

    def _longer(self, space: gymnasium.spaces.Box) -> gymnasium.spaces.Box:
        size = len(self._number)
        low = np.concatenate((space.low, np.zeros(size, np.float32)))
        high = np.concatenate((space.high, np.ones(size, np.float32)))
        return gymnasium.spaces.Box(low, high, dtype=np.float32)


def make_counted_team(env: dict[str, Any]) -> ParallelEnv:
    """The environment of a task, whose agents see their numbers.

    Args:
        env: The section `env` of the job; its id is `pettingzoo:module` or `module:function`.
    """
    package, _, name = env["id"].partition(":")
    look_in_own_modules(env["id"])
    module, function = (name, "parallel_env") if package == PETTINGZOO else (package, name)
    made = getattr(importlib.import_module(module), function)()
    return Numbered(CountedTeam(made))
