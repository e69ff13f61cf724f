"""Wrappers that hide a part of an observation, for tasks that need memory; see `env.wrappers`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np


class HideEntries(gymnasium.ObservationWrapper[np.ndarray, Any, np.ndarray]):
    """Removes entries of a vector observation, such as the velocities of CartPole-v1, 1 and 3.

    Args:
        env: Its observation space is a Box [N].
        entries: Indices from 0 of those to remove; not all of them.

    Raises:
        ValueError: The observation is no vector, or has no such entry, or none would be left.
    """

    def __init__(self, env: gymnasium.Env[np.ndarray, Any], entries: Sequence[int]) -> None:
        super().__init__(env)
        space = env.observation_space
        if not isinstance(space, gymnasium.spaces.Box) or len(space.shape) != 1:
            raise ValueError(f"entries can be hidden of a vector only, not of {space}")
        size = space.shape[0]
        wrong = [entry for entry in entries if entry not in range(size)]
        if wrong:
            raise ValueError(f"entries must be from 0 to {size - 1}, not {wrong[0]}")
        self._kept = np.setdiff1d(np.arange(size), np.asarray(entries, np.int64))
        if not len(self._kept):
            raise ValueError(f"entries {entries} are all of them; nothing would be left")
        self.observation_space = gymnasium.spaces.Box(
            space.low[self._kept], space.high[self._kept], dtype=np.dtype(space.dtype).type
        )

    def observation(self, observation: np.ndarray) -> np.ndarray:
        """[N] -> [N - hidden]."""
        return observation[self._kept]
