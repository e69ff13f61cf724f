"""Checks what environments return, before anything acts on it or trains on it.

A network that was trained on one NaN is lost, and NumPy silently broadcasts an array of a wrong
shape over a batch.
"""

from __future__ import annotations

import traceback
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import VectorEnv
from numpy import vdot

from engine.blame import summary_of
from engine.errors import RunFailedError
from engine.spaces.action_parts import parts_of
from engine.spaces.leaves import AnySpace, Leaf, Structure, leaf_values, leaves_of
from engine.spaces.observations import MASK, has_mask_key

Info = dict[str, object]
LARGEST_SQUARE = float(np.finfo(np.float32).max) ** 2
"""Rollouts are in single precision, where larger values would be infinite."""


def checked(env: VectorEnv[Any, Any, Any], env_id: str) -> CheckedVectorEnv:
    """Wraps an environment so that what it returns is checked."""
    is_box = isinstance(env.single_observation_space, gymnasium.spaces.Box)
    return (CheckedVectorEnv if is_box else CheckedLeavesVectorEnv)(env, env_id)


class CheckedVectorEnv(gymnasium.vector.VectorWrapper[np.ndarray, np.ndarray, np.ndarray]):
    """Refuses undeclared shapes and non-finite values, naming environment and step.

    Exceptions of an environment get the same names as a note.

    Args:
        env: What to check.
        env_id: For the errors.
    """

    def __init__(self, env: VectorEnv[np.ndarray, np.ndarray, np.ndarray], env_id: str) -> None:
        super().__init__(env)
        self._env_id = env_id
        self._num_steps = 0
        self._gives_masks = has_mask_key(env.single_observation_space)
        shape = env.single_observation_space.shape
        self._observation_shape = None if shape is None else (env.num_envs, *shape)
        self._row_shape = (env.num_envs,)
        dtype = env.single_observation_space.dtype
        self._is_whole = dtype is not None and dtype.kind in "biu"

    def reset(
        self, *, seed: int | None = None, options: Info | None = None
    ) -> tuple[np.ndarray, Info]:
        """Resets all copies. Raises RunFailedError for an invalid observation [B, ...]."""
        try:
            observation, info = self.env.reset(seed=seed, options=options)
        except Exception as error:
            self._tell(error, "reset")
            raise
        self._check_observation(observation)
        self._gives_masks |= MASK in info
        return observation, info

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, Info]:
        """One step of all copies. Raises RunFailedError for an invalid result."""
        self._num_steps += 1
        try:
            result = self.env.step(actions)
        except Exception as error:
            self._tell(error, f"step {self._num_steps}")
            raise
        observation, reward, terminated, truncated, info = result
        row = self._row_shape
        if self._num_steps == 1:
            self._refuse_late_mask(info)
        is_sound = (
            observation.shape == self._observation_shape
            and reward.shape == row
            and terminated.shape == row
            and truncated.shape == row
            and (self._is_whole or float(vdot(observation, observation)) < LARGEST_SQUARE)
            and float(vdot(reward, reward)) < LARGEST_SQUARE
        )
        if (
            not is_sound
        ):  # this can be a false alarm: a sum of squares overflows before its summands do
            self._check_all(*result[:4])
        return result

    def _tell(self, error: Exception, when: str) -> None:
        """Adds where an environment raised; or raises RunFailedError, see `_refuse_raw`."""
        self._refuse_raw(error)
        error.add_note(f"{self._env_id} raised this in {when}")

    def _check_all(
        self,
        observation: Structure,
        reward: np.ndarray,
        terminated: np.ndarray,
        truncated: np.ndarray,
    ) -> None:
        """Raises RunFailedError for the first invalid value."""
        self._check_observation(observation)
        self._check("reward", reward, self._row_shape)
        self._check("terminated", terminated, self._row_shape)
        self._check("truncated", truncated, self._row_shape)

    def _refuse_late_mask(self, info: Info) -> None:
        """Raises RunFailedError if the first step has a mask and the reset had none: whether there
        are masks is seen in the reset."""
        if MASK in info and not self._gives_masks and parts_of(self.env.single_action_space).nvec:
            raise self._refused(f"{MASK} is in the info of step, and was not in that of reset")

    def _refuse_raw(self, error: Exception) -> None:
        """Raises RunFailedError if single observations cannot be stacked: NumPy's message for that
        names neither the environment nor the declared space."""
        single = getattr(self.env.unwrapped, "_env_obs", None)
        if single is None:
            return
        frames = [frame.f_code.co_name for frame, _ in traceback.walk_tb(error.__traceback__)]
        if not any(
            "concatenate" in name for name in frames
        ):  # then an environment raised, and returned nothing
            return
        for number, observation in enumerate(single):
            self._refuse_single(number, observation, error)

    def _refuse_single(self, number: int, observation: object, error: Exception) -> None:
        """Raises RunFailedError if the observation of one environment has a wrong shape or type."""
        space = self.env.single_observation_space
        self._refuse_array(f"observation of environment {number}", observation, space, error)

    def _refuse_array(self, what: str, value: object, space: AnySpace, error: Exception) -> None:
        try:
            found = np.asarray(value)
        except ValueError:
            raise self._refused(
                f"{what} is not an array but {value!r:.60}; its space is {space}", error
            ) from error
        if found.shape != space.shape or not np.can_cast(
            found.dtype, space.dtype or found.dtype, "same_kind"
        ):
            raise self._refused(
                f"{what} has shape {found.shape} and dtype {found.dtype}; its space declares"
                f" {space.shape} and {space.dtype}",
                error,
            ) from error

    def _check_observation(self, observation: Structure) -> None:
        self._check("observation", observation, self._observation_shape)

    def _check(self, name: str, values: np.ndarray, shape: tuple[int, ...] | None) -> None:
        if shape is not None and values.shape != shape:
            raise self._refused(f"{name} has shape {values.shape}; expected {shape}")
        with np.errstate(over="ignore"):
            is_bad = ~np.isfinite(values.astype(np.float32))
        if is_bad.any():
            env = int(np.argwhere(is_bad)[0][0])
            raise self._refused(f"{name} of environment {env} is {values[is_bad][0]}")

    def _refused(self, what: str, cause: Exception | None = None) -> RunFailedError:
        when = f"in step {self._num_steps}" if self._num_steps else "in reset"
        raised = f"{self._env_id} raised this {when}: {summary_of(cause)}" if cause else ""
        return RunFailedError(
            f"{what} {when}; nothing is learnt from it",
            where=f"env.id {self._env_id}",
            fix=raised,
        )


class CheckedLeavesVectorEnv(CheckedVectorEnv):
    """The same for observations that are not one Box: every leaf is checked, and that whole numbers
    are within the range that their space declares.

    Args:
        env, env_id: See `CheckedVectorEnv`.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any], env_id: str) -> None:
        super().__init__(env, env_id)
        self._space = env.single_observation_space
        self._leaves = [_Leaf(leaf, env.num_envs) for leaf in leaves_of(self._space, "observation")]

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, Info]:
        """See `CheckedVectorEnv`."""
        self._num_steps += 1
        try:
            result = self.env.step(actions)
        except Exception as error:
            self._tell(error, f"step {self._num_steps}")
            raise
        if self._num_steps == 1:
            self._refuse_late_mask(result[4])
        observation, reward, terminated, truncated, _ = result
        row = self._row_shape
        is_sound = (
            reward.shape == row
            and terminated.shape == row
            and truncated.shape == row
            and float(vdot(reward, reward)) < LARGEST_SQUARE
        )
        if is_sound:
            self._check_observation(observation)
        else:  # this can be a false alarm, as above
            self._check_all(*result[:4])
        return result

    def _check_observation(self, observation: Structure) -> None:
        for leaf, given in zip(self._leaves, leaf_values(self._space, observation), strict=True):
            values = np.asarray(given)
            if not leaf.is_sound(values):
                self._check_leaf(leaf, values)

    def _check_leaf(self, leaf: _Leaf, values: np.ndarray) -> None:
        """Raises RunFailedError for the first invalid value of a leaf."""
        if isinstance(leaf.space, gymnasium.spaces.Box):
            self._check(leaf.name, values, leaf.shape)
        elif values.shape != leaf.shape:
            raise self._refused(f"{leaf.name} has shape {values.shape}; expected {leaf.shape}")
        else:
            is_bad = (values < leaf.low) | (values > leaf.high)
            env = int(np.argwhere(is_bad)[0][0])
            raise self._refused(
                f"{leaf.name} of environment {env} is {values[is_bad][0]}, outside its space"
                f" {leaf.space}"
            )

    def _refuse_single(self, number: int, observation: object, error: Exception) -> None:
        try:
            values = leaf_values(self._space, observation)
        except (LookupError, TypeError, ValueError):
            raise self._refused(
                f"observation of environment {number} is {observation!r:.60}; its space is"
                f" {self._space}",
                error,
            ) from error
        for leaf, value in zip(self._leaves, values, strict=True):
            self._refuse_array(f"{leaf.name} of environment {number}", value, leaf.space, error)


class _Leaf:
    """What is known of the values of a leaf before there are any.

    Args:
        leaf: Of one environment.
        num_envs: B.

    Attributes:
        name: For errors.
        space: Of one environment.
        shape: Of all environments' values, [B, ...].
        low, high: The lowest and the highest value of each entry, unless it is a Box.
    """

    def __init__(self, leaf: Leaf, num_envs: int) -> None:
        self.name = " ".join(("observation", ".".join(leaf.path))).rstrip()
        self.space = leaf.space
        self.shape = (num_envs, *(leaf.space.shape or ()))
        self.low, self.high = _range(leaf)
        self._is_box = isinstance(leaf.space, gymnasium.spaces.Box)

    def is_sound(self, values: np.ndarray) -> bool:
        """Whether values are as declared, in the fewest operations; False can be a false alarm for
        a Box: a sum of squares overflows before its summands do."""
        if values.shape != self.shape:
            return False
        if not self._is_box:
            return not ((values < self.low) | (values > self.high)).any()
        return values.dtype.kind in "biu" or float(vdot(values, values)) < LARGEST_SQUARE


def _range(leaf: Leaf) -> tuple[np.ndarray | int, np.ndarray | int]:
    """The lowest and the highest value of each entry of a leaf that is no Box."""
    match leaf.space:
        case gymnasium.spaces.Discrete() as space:
            return int(space.start), int(space.start + space.n) - 1
        case gymnasium.spaces.MultiDiscrete() as space:
            return space.start, space.start + space.nvec - 1
        case _:
            return 0, 1
