"""What a sampler is: it decides which positions of a store are drawn."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from engine.replay.store import BoolArray, IntArray

FloatArray = npt.NDArray[np.float64]


class Sampler(Protocol):
    """Draws positions."""

    def insert(self, first: int, is_transition: BoolArray) -> None:
        """A rollout now lies at positions `first` and following; some of it may be drawn."""
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
