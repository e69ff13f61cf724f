"""The states of an actor's memory, before each step of a rollout and after its last.

Acting writes the state after a step. Where that step only reset its environment, the next
observation is the first of an episode, and the state is set to zero.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from engine.executors.env_split import EnvSplit
from engine.executors.remote_env import Array
from engine.layers.inputs import STATE
from engine.rollout import Layout


class Memory:
    """States of B environments, float32 [T+1, B, S], which go from one rollout to the next.

    Args:
        layout: Of a rollout; it has the field `state`.
    """

    def __init__(self, layout: Layout) -> None:
        shape = (layout.num_steps + 1, layout.num_envs, *layout.field(STATE).shape)
        self._states = np.zeros(shape, np.float32)
        self._tensor = torch.from_numpy(self._states)
        self._has_ended = np.zeros(layout.num_envs, np.bool_)
        """Whose next step only resets."""

    def begin(self) -> Tensor:
        """Starts a rollout with the states that the last one ended with."""
        self._states[0] = self._states[-1]
        return self._tensor

    def finish(self, part: EnvSplit) -> None:
        """Called after each step of each split."""
        columns = part.columns
        resets = self._has_ended[columns]
        if resets.any():
            self._states[part.next_row, columns][resets] = 0.0
        self._has_ended[columns] = part.ended

    def store(self, target: Array) -> None:
        """Copies what a rollout keeps: as many of the first rows as `target`, [rows, B, S], has."""
        target[...] = self._states[: len(target)]
