"""Actions of environments that step as a vector of NumPy arrays."""

from __future__ import annotations

from typing import Any, TypeAlias

import gymnasium
import numpy as np
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv, VectorEnv
from numpy import vdot

from engine.envs.actions.choices import counted_from_0, is_counted_from_0
from engine.envs.actions.scale import INFINITE, Array, plain_conversion, scale_of, values_of
from engine.envs.actions.structure import ActionStructure
from engine.errors import RunFailedError
from engine.spaces.action_parts import leaf_columns
from engine.spaces.leaves import LeafSpace, Structure, structure_of

VectorEnvironment: TypeAlias = VectorEnv[np.ndarray, np.ndarray, np.ndarray]
VectorWrapper: TypeAlias = gymnasium.vector.VectorWrapper[np.ndarray, np.ndarray, np.ndarray]
VectorStep: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, object]]


def with_actions(env: VectorEnvironment, scales: bool = True) -> VectorEnvironment:
    """Wraps an environment so that it takes actions as algorithms choose them.

    Args:
        env: What to wrap.
        scales: `EnvSpec.scale_actions`.

    Raises:
        ConfigError: Its action space cannot be supported.
    """
    space = env.single_action_space
    if isinstance(space, gymnasium.spaces.Box):
        return RangedActions(env, scales)
    if isinstance(space, gymnasium.spaces.Discrete) and is_counted_from_0(space):
        return env
    return StructuredActions(env, scales)


class RangedActions(VectorWrapper):
    """Continuous actions, scaled so that -1 is the lowest value and 1 the highest, or as they are.

    Values beyond are clipped here and only here, so the density of the policy that acted stays
    that of the action which it chose. See `Scale` for entries without bounds.

    Args:
        env: Its single action space is a Box; actions are [B, ...] or flat, [B, D].
        scales: Whether they are scaled.

    Raises:
        ConfigError: It is one that cannot be supported.
    """

    def __init__(self, env: VectorEnvironment, scales: bool = True) -> None:
        super().__init__(env)
        space = env.single_action_space
        assert isinstance(space, gymnasium.spaces.Box)
        self._scale = scale = scale_of(space, scales)
        self._shape = (env.num_envs, *scale.shape)
        self._plain = plain_conversion(space, scales)
        self._goes_apart = _goes_apart(env, space)
        self._num_steps = 0

    def step(self, actions: np.ndarray) -> VectorStep:
        """One step with actions [B, ...]. Raises RunFailedError for a non-finite action."""
        self._num_steps += 1
        if not float(vdot(actions, actions)) < INFINITE:  # it can also be a large number
            refuse(actions, self._num_steps)
        if self._plain is None:
            values = values_of(self._scale, actions)
        else:
            values = self._plain(actions)
            if values.shape != self._shape:
                values = values.reshape(self._shape)
        if self._goes_apart:
            return self.env.step(_apart(values))
        return self.env.step(values)


class StructuredActions(VectorWrapper):
    """Takes flat actions apart into what the environment declares.

    Actions are the rows of `engine.spaces.action_parts`: int64 [B] for a Discrete, int64 [B, K]
    for K categorical entries, float32 [B, K + D] if there are D reals too. The environment is given
    the structure of its own space with arrays [B, *shape of the leaf], as a value of its batched
    space: each choice from its start, each real as `RangedActions` has it.

    Args:
        env: Its single action space is any that `leaves_of` takes apart.
        scales: Whether reals are scaled, as by `RangedActions`.

    Raises:
        ConfigError: It is another.
    """

    def __init__(self, env: VectorEnvironment, scales: bool = True) -> None:
        super().__init__(env)
        self._space = space = env.single_action_space
        self._structure = ActionStructure(space, scales)
        self._goes_apart = [_goes_apart(env, leaf) for leaf, _ in leaf_columns(space)]
        self._num_steps = 0
        if isinstance(space, gymnasium.spaces.Discrete):
            self.single_action_space = counted_from_0(space)
            self.action_space = gymnasium.vector.utils.batch_space(
                self.single_action_space, env.num_envs
            )

    def step(self, actions: np.ndarray) -> VectorStep:
        """One step with flat actions. Raises RunFailedError for a non-finite action."""
        self._num_steps += 1
        if actions.dtype.kind == "f" and not float(vdot(actions, actions)) < INFINITE:
            refuse(actions, self._num_steps)
        return self.env.step(self.structured(actions))

    def structured(self, actions: np.ndarray) -> Structure:
        """Flat actions of B environments as a value of their batched space."""
        leaves = zip(self._structure.leaves(actions), self._goes_apart, strict=True)
        values = [_apart(value) if goes_apart else value for value, goes_apart in leaves]
        return structure_of(self._space, iter(values))


def _goes_apart(env: VectorEnvironment, space: LeafSpace) -> bool:
    """Whether actions have to be a list: iterating an array of scalars, as Gymnasium's own vectors
    do, gives scalars, which are in no Box and no MultiBinary."""
    is_iterated = isinstance(env.unwrapped, SyncVectorEnv | AsyncVectorEnv)
    return is_iterated and not space.shape and not isinstance(space, gymnasium.spaces.Discrete)


def _apart(values: Array) -> Any:  # noqa: ANN401 - what `step` is declared with is an array
    return [values[i, ...] for i in range(len(values))]


def refuse(actions: np.ndarray, num_steps: int) -> None:
    """Raises RunFailedError if an entry is not finite; the sum of their squares may be so alone."""
    is_bad = ~np.isfinite(actions)
    if is_bad.any():
        env = int(np.argwhere(is_bad)[0][0])
        raise RunFailedError(
            f"the action for environment {env} is {actions[is_bad][0]} in step"
            f" {num_steps}: the policy's output is not finite",
            fix="lower algorithm.learning_rate, or scale observations to a smaller range",
        )
