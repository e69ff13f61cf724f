"""The mean of several runs with a band around it, on one axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

NUM_POINTS = 240
NUM_RESAMPLES = 1000
FEW = 5
"""From so many runs on, the band is a bootstrap interval of their mean; below, an interval would
be no more than a guess, so it is their least and greatest value."""
MIN_TO_MAX = "least to greatest"
BOOTSTRAP = "95 % bootstrap interval of the mean"


@dataclass(frozen=True)
class SeedBand:
    """Mean and band of several runs on a common axis, each array of one length.

    Attributes:
        x: Increasing.
        mean, low, high: At each of them.
        count: Number of runs.
    """

    x: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    count: int

    @property
    def kind(self) -> str:
        """What the band shows, in words."""
        return BOOTSTRAP if self.count >= FEW else MIN_TO_MAX


def band_of(
    curves: Sequence[pd.DataFrame], x: str, y: str, *, holds_last: bool = False
) -> SeedBand | None:
    """Mean and band where all runs have a value.

    Args:
        curves: One for each run; `x` must not fall. Runs without a row do not count.
        x, y: Their columns.
        holds_last: A run that ended earlier keeps its last value, up to the end of the last run.

    Returns:
        None below two runs, and where no part of the axis is common to all.
    """
    usable = [curve for curve in curves if len(curve)]
    if len(usable) < 2:
        return None
    start = max(float(curve[x].iloc[0]) for curve in usable)
    ends = [float(curve[x].iloc[-1]) for curve in usable]
    stop = max(ends) if holds_last else min(ends)
    if stop < start:
        return None
    grid = np.linspace(start, stop, NUM_POINTS)
    values = np.stack([np.interp(grid, curve[x], curve[y]) for curve in usable])
    low, high = _interval(values) if len(usable) >= FEW else (values.min(0), values.max(0))
    return SeedBand(grid, values.mean(axis=0), low, high, len(usable))


def _interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Percentile bootstrap of the mean over the first axis, [runs, points]; the same each time."""
    indices = np.random.default_rng(0).integers(0, len(values), size=(NUM_RESAMPLES, len(values)))
    means = values[indices].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5], axis=0)
    return low, high
