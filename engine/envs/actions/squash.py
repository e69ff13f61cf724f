"""Squashing: tanh of what a policy chooses, instead of clipping at the bounds.

A Gaussian policy can choose any real. Where an entry has two bounds, clipping makes one action of
all that lies beyond; tanh keeps them apart. It is part of the environment: log-probabilities are
those of what was chosen. Ratios of two policies, as in PPO and V-trace, are the same before and
after it; entropies are those before it.
"""

from __future__ import annotations

import gymnasium
import numpy as np
import torch
from numpy import vdot
from torch import Tensor

from engine.envs.actions.scale import INFINITE, Array
from engine.envs.actions.vector import VectorEnvironment, VectorStep, VectorWrapper, refuse
from engine.errors import ConfigError
from engine.spaces.action_parts import leaf_columns, parts_of
from engine.spaces.leaves import AnySpace


def squashed_columns(space: AnySpace) -> Array:
    """Which entries of a flat action are reals with two bounds, bool [K + D].

    Raises:
        ConfigError: There are none.
    """
    parts = parts_of(space)
    is_bounded = np.zeros(len(parts.nvec) + parts.num_reals, np.bool_)
    for leaf, columns in leaf_columns(space):
        if isinstance(leaf, gymnasium.spaces.Box):
            is_bounded[columns] = (leaf.bounded_below & leaf.bounded_above).reshape(-1)
    if not is_bounded.any():
        raise ConfigError(
            f"there is nothing to squash: no entry of {space} has two bounds",
            where="env.squash_actions",
        )
    return is_bounded


class SquashedActions(VectorWrapper):
    """Passes tanh of the bounded reals on, to a wrapper that takes flat actions.

    Args:
        env: That wrapper.
        space: Action space of one environment, as it declares it.

    Raises:
        ConfigError: There is nothing to squash.
    """

    def __init__(self, env: VectorEnvironment, space: AnySpace) -> None:
        super().__init__(env)
        self._is_bounded = squashed_columns(space)
        self._num_steps = 0

    def step(self, actions: np.ndarray) -> VectorStep:
        """One step with flat actions. Raises RunFailedError for a non-finite one: tanh of an
        infinite number would be a bound."""
        self._num_steps += 1
        if not float(vdot(actions, actions)) < INFINITE:
            refuse(actions, self._num_steps)
        rows = actions.reshape(len(actions), -1)
        return self.env.step(np.where(self._is_bounded, np.tanh(rows), rows))


class TensorSquash:
    """The same for tensors on a device.

    Args:
        space: Action space of one environment.
        device: Where actions are.

    Raises:
        ConfigError: There is nothing to squash.
    """

    def __init__(self, space: AnySpace, device: torch.device) -> None:
        self._is_bounded = torch.from_numpy(squashed_columns(space)).to(device)

    def __call__(self, action: Tensor) -> Tensor:
        """Flat actions [B, K + D] of reals, or of reals and choices."""
        rows = action.reshape(action.shape[0], -1)
        return torch.where(self._is_bounded, torch.tanh(rows), rows)
