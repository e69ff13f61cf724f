"""Samplers decide which positions of a store are drawn; here the uniform one (Mnih et al.,
2015)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import numpy.typing as npt

from engine.replay.store import BoolArray, FloatArray, IntArray


class Sampler(Protocol):
    """Draws positions.

    Attributes:
        random: Its source of randomness.
    """

    random: np.random.Generator

    def insert(self, first: int, is_transition: BoolArray, errors: FloatArray | None) -> None:
        """A rollout was stored from position `first` on; some of its steps can be drawn.

        `errors` are initial absolute TD errors, floats [T x B], if they are known.
        """
        ...

    def draw(self, num_samples: int) -> tuple[IntArray, FloatArray]:
        """Positions, int64, and importance weights, floats; [num_samples] each.

        Raises:
            ValueError: There is no transition yet.
        """
        ...

    def update(self, positions: IntArray, errors: FloatArray) -> None:
        """Updates priorities from the learner's absolute TD errors at these positions, [N] each."""
        ...

    def state(self, num_filled: int) -> dict[str, FloatArray]:
        """Copies of what it knows of the first positions, but for which of them can be drawn."""
        ...

    def restore(self, state: Mapping[str, npt.NDArray[np.generic]]) -> None:
        """Takes over what `state` has, once all rollouts were inserted again.

        Raises:
            ValueError: It cannot be of these rollouts.
        """
        ...


class UniformSampler:
    """Draws every transition with the same probability.

    Args:
        num_positions: Of the store.
        random: Source of randomness.
    """

    def __init__(self, num_positions: int, random: np.random.Generator) -> None:
        self._is_transition = np.zeros(num_positions, np.bool_)
        self._num_filled = 0
        self._num_transitions = 0
        self.random = random

    def insert(self, first: int, is_transition: BoolArray, errors: FloatArray | None) -> None:
        span = slice(first, first + len(is_transition))
        overwritten = np.count_nonzero(self._is_transition[span])
        self._num_transitions += int(np.count_nonzero(is_transition) - overwritten)
        self._is_transition[span] = is_transition
        self._num_filled = max(self._num_filled, span.stop)

    def draw(self, num_samples: int) -> tuple[IntArray, FloatArray]:
        if not self._num_transitions:
            raise ValueError("nothing to draw from")
        found: list[IntArray] = []
        missing = num_samples
        while missing > 0:  # positions of steps that only reset are drawn again
            share = self._num_transitions / self._num_filled
            candidates = self.random.integers(self._num_filled, size=int(missing / share) + 8)
            found.append(candidates[self._is_transition[candidates]])
            missing -= len(found[-1])
        return np.concatenate(found)[:num_samples], np.ones(num_samples)

    def update(self, positions: IntArray, errors: FloatArray) -> None:
        """Does nothing: errors are not used."""

    def state(self, num_filled: int) -> dict[str, FloatArray]:
        """Nothing but its random numbers."""
        return {}

    def restore(self, state: Mapping[str, npt.NDArray[np.generic]]) -> None:
        """Does nothing: see `state`."""
