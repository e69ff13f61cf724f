"""The interface of a sampler, which decides which positions of a store are drawn."""

from __future__ import annotations

from typing import Protocol

from engine.replay.store import BoolArray, FloatArray, IntArray


class Sampler(Protocol):
    """Draws positions."""

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
