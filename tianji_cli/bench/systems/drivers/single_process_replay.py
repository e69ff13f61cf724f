"""The replay store of the plain loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor


class Replay:
    """The last transitions, in arrays.

    Args:
        capacity: Transitions.
        shape: Of one observation.
        dtype: Of its elements.
        action_shape, action_dtype: Likewise, of one action.
    """

    def __init__(
        self,
        capacity: int,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        action_shape: tuple[int, ...],
        action_dtype: np.dtype[Any],
    ) -> None:
        self._capacity = capacity
        self._arrays: tuple[np.ndarray, ...] = (
            np.zeros((capacity, *shape), dtype),  # observation
            np.zeros((capacity, *action_shape), action_dtype),  # action
            np.zeros(capacity, np.float32),  # reward
            np.zeros((capacity, *shape), dtype),  # the observation after it
            np.zeros(capacity, np.float32),  # 1 where that one was terminal
        )
        self.size = self._next = 0

    def add(self, *transition: Any) -> None:  # noqa: ANN401 - one value for each array
        for array, value in zip(self._arrays, transition, strict=True):
            array[self._next] = value
        self._next = (self._next + 1) % self._capacity
        self.size = min(self.size + 1, self._capacity)

    def sample(self, count: int) -> tuple[Tensor, ...]:
        rows = np.random.randint(0, self.size, count)
        return tuple(torch.as_tensor(array[rows]) for array in self._arrays)
