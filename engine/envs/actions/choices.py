"""Choices of a policy as values of a Discrete, MultiDiscrete or MultiBinary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Discrete, MultiBinary, MultiDiscrete

from engine.envs.actions.scale import Array, wrapped


@dataclass(frozen=True, eq=False)
class Choices:
    """Converts choices counted from 0: start + choice, in the environment's dtype and shape.

    Attributes:
        dtype: Of the environment.
        shape: Of one action there.
        start: Of each entry, int64 [K]; sums with it wrap around, as in `Scale`.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    start: npt.NDArray[np.int64]

    def __call__(self, choices: Array) -> Array:
        """Whole numbers [B, K], possibly as floats, to [B, *shape]."""
        if not self.shape and not self.start[0] and self.dtype == choices.dtype == np.int64:
            return choices.reshape(-1)
        values = (choices.astype(np.int64) + self.start).astype(self.dtype)
        return values.reshape(len(choices), *self.shape)


def choices_of(space: Discrete | MultiDiscrete | MultiBinary) -> Choices:
    """The conversion to values of a space."""
    dtype, shape = np.dtype(space.dtype), tuple(space.shape or ())
    start = np.zeros(shape, np.int8) if isinstance(space, MultiBinary) else space.start
    starts = [wrapped(int(value)) for value in np.ravel(start)]
    return Choices(dtype, shape, np.array(starts, np.int64))


def is_counted_from_0(space: Discrete) -> bool:
    """Whether its actions are those that algorithms choose: 0 to n - 1, in int64."""
    return int(space.start) == 0 and space.dtype == np.int64


def counted_from_0(space: Discrete) -> Discrete:
    """A space with as many actions, counted from 0, in int64."""
    return Discrete(int(space.n))
