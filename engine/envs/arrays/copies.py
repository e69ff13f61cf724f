"""Copies of a single environment that step as arrays, and are what stepping each of them gives.

Each copy has random numbers of its own, as single environments have: episodes begin in the same
states. Arithmetic is that of the original, operation by operation; NumPy rounds some of them, as
powers, in another way for arrays than for single numbers, so a last bit can differ.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

Array: TypeAlias = npt.NDArray[Any]
Floats: TypeAlias = npt.NDArray[np.float64]
Bools: TypeAlias = npt.NDArray[np.bool_]
Step: TypeAlias = tuple[Array, Floats, Bools, Bools, dict[str, Any]]


class ArrayCopies(VectorEnv[Array, Array, Array], ABC):
    """Restarts in next-step mode.

    Args:
        num_envs: B.
        observation, action: Spaces of one environment.
        num_states: S, numbers that are the state of one.
        max_episode_steps: Longer episodes are truncated.

    Attributes:
        state: Of all copies, float64 [S, B].
    """

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(
        self,
        num_envs: int,
        observation: spaces.Box,
        action: spaces.Space[Any],
        num_states: int,
        max_episode_steps: int,
    ) -> None:
        self.num_envs = num_envs
        self.single_observation_space, self.single_action_space = observation, action
        self.observation_space = batch_space(observation, num_envs)
        self.action_space = batch_space(action, num_envs)
        self.state: Floats = np.zeros((num_states, num_envs))
        self._max_episode_steps = max_episode_steps
        self._age = np.zeros(num_envs, np.int64)
        self._has_ended: Bools = np.zeros(num_envs, np.bool_)
        self._any_ended = False
        self._generators = [seeding.np_random(None)[0] for _ in range(num_envs)]

    @abstractmethod
    def begin(self, generator: np.random.Generator) -> Array:
        """The state that an episode begins with, [S], in the precision of the original."""

    @abstractmethod
    def move(self, actions: Array) -> tuple[Floats, Bools]:
        """Moves all states by one step; rewards [B], and which episodes have ended, [B].

        Args:
            actions: [B, ...]. Those of a copy that is about to begin an episode mean nothing.
        """

    @abstractmethod
    def observe(self, state: Array) -> Array:
        """What is observed of states [S, B], or of one, [S]: [entries, B] or [entries]."""

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Begins an episode in every copy; the i-th one has the seed of the first plus i."""
        if seed is not None:
            seeds = seed if isinstance(seed, list) else [seed + i for i in range(self.num_envs)]
            self._generators = [seeding.np_random(one)[0] for one in seeds]
        self._age.fill(0)
        self._has_ended = np.zeros(self.num_envs, np.bool_)
        self._any_ended = False
        observation = np.zeros(self.observation_space.shape or (), np.float32)
        self._restart(np.arange(self.num_envs), observation)
        return observation, {}

    def step(self, actions: Array) -> Step:
        """One step of all copies; those whose episode has ended only begin another."""
        reward, terminated = self.move(actions)
        self._age += 1
        truncated = self._age >= self._max_episode_steps
        observation = self.observe(self.state).T.astype(np.float32)
        if self._any_ended:
            where = self._has_ended.nonzero()[0]
            self._age[where] = 0
            reward[where] = 0.0
            terminated[where] = truncated[where] = False
            self._restart(where, observation)
        self._has_ended = terminated | truncated
        self._any_ended = bool(self._has_ended.any())
        return observation, reward, terminated, truncated, {}

    def _restart(self, where: Array, observation: Array) -> None:
        """Begins an episode in these copies, and observes it."""
        for copy in where:
            state = self.begin(self._generators[copy])
            self.state[:, copy] = state
            observation[copy] = self.observe(state)
