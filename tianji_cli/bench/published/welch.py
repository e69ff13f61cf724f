"""Intervals of means, and of differences between means, by Student's t. Pure; tests cross-check
with SciPy. Every interval is a 95 % interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, variance

import numpy as np

from tianji_cli.bench.statistics import CONFIDENCE, Interval, Z

MAX_T = 12.71
"""Above the quantile for one degree of freedom, the fewest that occur."""
NUM_POINTS = 2001
"""Of Simpson's rule: odd. The error is below 1e-9."""
PRECISION = 1e-9


@dataclass(frozen=True)
class SampleMoments:
    """What is known of a sample.

    Attributes:
        mean: Of its values.
        variance: Unbiased: the squares are divided by `count` - 1.
        count: Values, at least two.
    """

    mean: float
    variance: float
    count: int

    @property
    def variance_of_mean(self) -> float:
        return self.variance / self.count


def sample_of(values: Sequence[float]) -> SampleMoments:
    """Of two values or more."""
    return SampleMoments(fmean(values), variance(values), len(values))


def mean_interval(values: Sequence[float]) -> Interval:
    """The mean with its interval; a single value has none.

    >>> mean_interval([2.0, 2.0, 2.0])
    Interval(estimate=2.0, low=2.0, high=2.0)
    """
    if len(values) < 2:
        return Interval(estimate=fmean(values))
    sample = sample_of(values)
    return _around(sample.mean, sample.variance_of_mean, sample.count - 1)


def mean_difference(ours: SampleMoments, theirs: SampleMoments) -> Interval:
    """The difference of two means with its interval (Welch, 1947): variances can differ."""
    a, b = ours.variance_of_mean, theirs.variance_of_mean
    squares = a**2 / (ours.count - 1) + b**2 / (theirs.count - 1)
    freedom = (a + b) ** 2 / squares if squares else math.inf
    return _around(ours.mean - theirs.mean, a + b, freedom)


def difference_from_one(ours: SampleMoments, value: float, error_variance: float = 0.0) -> Interval:
    """The difference between the mean of a sample and one more value, as if it were of the same
    kind: a prediction interval, around zero if it is.

    Args:
        ours: The sample, whose variance is also that of the value.
        value: The other value.
        error_variance: What its measurement adds to its variance.
    """
    total = ours.variance + ours.variance_of_mean + error_variance
    return _around(ours.mean - value, total, ours.count - 1)


def t_quantile(freedom: float) -> float:
    """The quantile of Student's t for two-sided intervals.

    >>> round(t_quantile(2), 3), round(t_quantile(math.inf), 3)
    (4.303, 1.96)
    """
    low, high = Z, MAX_T
    while high - low > PRECISION and math.isfinite(freedom):
        middle = (low + high) / 2
        if _probability_within(middle, freedom) < CONFIDENCE:
            low = middle
        else:
            high = middle
    return low


def _probability_within(t: float, freedom: float) -> float:
    """That a variable with Student's distribution is between -t and t."""
    log_scale = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)
    scale = math.exp(log_scale - math.log(freedom * math.pi) / 2)
    x = np.linspace(0.0, t, NUM_POINTS)
    density = scale * np.exp(-(freedom + 1) / 2 * np.log1p(x**2 / freedom))
    inner = 4 * density[1:-1:2].sum() + 2 * density[2:-1:2].sum()
    return float(2 * (density[0] + inner + density[-1]) * x[1] / 3)


def _around(estimate: float, variance_of_estimate: float, freedom: float) -> Interval:
    half = t_quantile(freedom) * math.sqrt(variance_of_estimate)
    return Interval(estimate=estimate, low=estimate - half, high=estimate + half)
