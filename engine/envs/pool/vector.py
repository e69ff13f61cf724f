"""A vector environment of EnvPool's, as the engine expects it (`engine.envs.make`).

EnvPool restarts in next-step mode too. Three things are different and adapted here. Its seeds are
fixed when it is made, so a reset with a seed makes it anew. A step that reaches the limit of an
episode is truncated there, and a termination in that very step is lost: so it gets no limit, and
episodes are truncated here and restarted by hand. Its spaces have other types.
"""

from __future__ import annotations

import warnings
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from engine.envs.pool.catalogue import PoolTask

NO_LIMIT = 2**30
SEEDS = 2**31
"""EnvPool's seeds are signed 32-bit integers."""
Array = npt.NDArray[Any]
Indices = npt.NDArray[np.int32]


class PoolVectorEnv(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """Environments that threads of EnvPool step; its own calls release Python's lock.

    Args:
        task: What is made.
        num_envs: B.

    Raises:
        Exception: Whatever EnvPool says of its arguments.
    """

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(self, task: PoolTask, num_envs: int) -> None:
        import envpool

        self._task = task
        self._options = {**task.options, "num_envs": num_envs, "max_episode_steps": NO_LIMIT}
        self._make = envpool.make_gymnasium
        with warnings.catch_warnings(action="ignore", category=UserWarning):
            spec = envpool.make_spec(task.name, **self._options)
            observation_space = spec.observation_space  # bounds lose precision, as Gymnasium's do
        self.num_envs = num_envs
        self.single_observation_space = task.observation_space or observation_space
        self.single_action_space = _action_space(spec.action_space)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._action_shape = self.action_space.shape
        self._ids: Indices = np.arange(num_envs, dtype=np.int32)
        self._late: Indices | None = None
        self._pool: Any = None
        self._num_blank = task.num_blank

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Starts new episodes, the i-th with the seed `seed` + i."""
        if seed is not None or self._pool is None:
            first = int(self.np_random.integers(SEEDS)) if seed is None else seed
            seeds = [(first + i) % SEEDS for i in range(self.num_envs)]
            self._pool = None  # its threads end before others start
            self._pool = self._make(self._task.name, seed=seeds, **self._options)
            keys = list(self._pool._state_keys)
            self._places = [keys.index(key) for key in ("obs", "reward", "done", "elapsed_step")]
            self._lives = keys.index("info:lives") if "info:lives" in keys else None
        self._late = None
        self._pool._reset(self._ids)
        values = self._pool._recv()
        observation, *_, elapsed = (values[i] for i in self._places)
        return self._seen(observation, elapsed), self._info(values)

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """One step of all copies; those whose episode has ended only start another."""
        if actions.shape != self._action_shape:
            raise ValueError(f"actions have shape {actions.shape}, not {self._action_shape}")
        if self._late is None:
            self._pool._send([self._ids, self._ids, actions])
            values = self._pool._recv()
        else:
            values = self._step_and_restart(actions, self._late)
        observation, reward, terminated, elapsed = (values[i] for i in self._places)
        truncated = elapsed >= self._task.limit
        self._late = None
        if truncated.any():
            late = truncated & ~terminated
            self._late = np.flatnonzero(late).astype(np.int32) if late.any() else None
            truncated = late if self._task.ends_once else truncated
        return self._seen(observation, elapsed), reward, terminated, truncated, self._info(values)

    def close(self, **_kwargs: Any) -> None:  # noqa: ANN401 - as Gymnasium has it
        """Ends the threads; a second time does nothing."""
        self._pool = None

    def _step_and_restart(self, actions: np.ndarray, late: Indices) -> list[Array]:
        """Restarts those that were truncated, which EnvPool does not know, and steps the others."""
        others = np.setdiff1d(self._ids, late).astype(np.int32)
        self._pool._reset(late)
        restarted = self._pool._recv()
        if not len(others):
            return list(restarted)
        self._pool._send([others, others, actions[others]])
        order = np.argsort(np.concatenate([late, others]))
        both = zip(restarted, self._pool._recv(), strict=True)
        return [np.concatenate(parts)[order] for parts in both]

    def _seen(self, observation: Array, elapsed: Array) -> Array:
        """The observation, with black frames before those of this episode, as ale-py has them."""
        if self._num_blank and elapsed.min() < self._num_blank:
            for i in np.flatnonzero(elapsed < self._num_blank):
                observation[i, : self._num_blank - elapsed[i]] = 0
        return observation

    def _info(self, values: list[Array]) -> dict[str, Any]:
        return {} if self._lives is None else {"lives": values[self._lives]}


def _action_space(space: gymnasium.Space[Any]) -> gymnasium.Space[Any]:
    """That of Gymnasium: MuJoCo's is declared in single precision there."""
    if isinstance(space, Discrete):
        return Discrete(int(space.n))
    assert isinstance(space, Box)
    return Box(space.low.astype(np.float32), space.high.astype(np.float32), dtype=np.float32)
