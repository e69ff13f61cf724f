"""What environments return is checked here, before anything acts on it or learns from it.

A network that was trained on one NaN is lost for good, and NumPy spreads an array of a wrong shape
over a batch without a word.
"""

from __future__ import annotations

import math

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.vector import VectorEnv

from engine.errors import RunFailedError

Array = npt.NDArray[np.generic]
Info = dict[str, object]


class CheckedVectorEnv(gymnasium.vector.VectorWrapper[np.ndarray, np.ndarray, np.ndarray]):
    """Refuses shapes that were not announced, and numbers that are none, naming environment and
    step. What an environment raises gets the same names as a note.

    Args:
        env: What to check.
        env_id: For the errors.
    """

    def __init__(self, env: VectorEnv[np.ndarray, np.ndarray, np.ndarray], env_id: str) -> None:
        super().__init__(env)
        self._env_id = env_id
        self._num_steps = 0
        shape = env.single_observation_space.shape
        self._observation_shape = None if shape is None else (env.num_envs, *shape)
        self._row_shape = (env.num_envs,)

    def reset(
        self, *, seed: int | None = None, options: Info | None = None
    ) -> tuple[np.ndarray, Info]:
        """Raises RunFailedError for what must not be learnt from."""
        try:
            observation, info = self.env.reset(seed=seed, options=options)
        except Exception as error:
            error.add_note(f"{self._env_id} raised this in reset")
            raise
        self._check("observation", observation, self._observation_shape)
        return observation, info

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, Info]:
        """Raises RunFailedError for what must not be learnt from."""
        self._num_steps += 1
        try:
            result = self.env.step(actions)
        except Exception as error:
            error.add_note(f"{self._env_id} raised this in step {self._num_steps}")
            raise
        observation, reward, terminated, truncated, _ = result
        self._check("observation", observation, self._observation_shape)
        self._check("reward", reward, self._row_shape)
        self._check("terminated", terminated, self._row_shape)
        self._check("truncated", truncated, self._row_shape)
        return result

    def _check(self, name: str, values: np.ndarray, shape: tuple[int, ...] | None) -> None:
        if type(values) is not np.ndarray:
            values = np.asarray(values)
        if shape is not None and values.shape != shape:
            raise self._refused(f"{name} has the shape {values.shape}, announced was {shape}")
        # A sum of squares is not finite if a value is not; large finite ones only seem so.
        if values.dtype.kind == "f" and not math.isfinite(np.vdot(values, values)):
            self._look_closer(name, values)

    def _look_closer(self, name: str, values: np.ndarray) -> None:
        is_bad = ~np.isfinite(values)
        if is_bad.any():
            env = int(np.argwhere(is_bad)[0][0])
            found = values[is_bad][0]
            raise self._refused(f"{name} of environment {env} is {found}")

    def _refused(self, what: str) -> RunFailedError:
        when = f"in step {self._num_steps}" if self._num_steps else "in reset"
        return RunFailedError(
            f"{what} {when}; nothing is learnt from it", where=f"env.id {self._env_id}"
        )
