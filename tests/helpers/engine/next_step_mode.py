"""What every vector environment must do after an episode's end."""

from __future__ import annotations

import itertools

import numpy as np


def check_next_step_mode(steps: list[tuple[np.ndarray, ...]]) -> None:
    """The step after an end only resets: no reward, no end."""
    num_ends = 0
    for (_, _, terminated, truncated), following in itertools.pairwise(steps):
        ends = terminated | truncated
        num_ends += int(ends.sum())
        assert not following[1][ends].any()
        assert not (following[2] | following[3])[ends].any()
    assert num_ends > 0, "no episode has ended, so nothing was tested"
