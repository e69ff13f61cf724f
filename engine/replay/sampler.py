"""The interface of a sampler, which decides which positions of a store are drawn."""

from __future__ import annotations

from typing import Protocol

from engine.replay.store import BoolArray, FloatArray, IntArray


class Sampler(Protocol):
    """Draws positions."""

    def insert(self, first: int, is_transition: BoolArray, errors: FloatArray | None) -> None:
        """A rollout was stored from position `first` on; some of its steps can be drawn.

        `errors` are absolute TD errors to begin with, if any are known.
        """
        ...

    def draw(self, num_samples: int) -> tuple[IntArray, FloatArray]:
        """Positions, and the weights that undo the bias of drawing them, [num_samples] each.

        Raises:
            ValueError: There is no transition yet.
        """
        ...

    def update(self, positions: IntArray, errors: FloatArray) -> None:
        """Takes in the absolute TD errors that the learner found at these positions."""
        ...
