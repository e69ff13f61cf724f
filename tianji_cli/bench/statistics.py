"""Statistics of a handful of paired runs. NumPy only; tests cross-check with SciPy and rliable.

Every interval is a 95 % interval. Bootstraps use a fixed seed: the same data gives the same page.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import TypeVar

import msgspec
import numpy as np

CONFIDENCE = 0.95
NUM_RESAMPLES = 10_000
FEW_BLOCKS = 10
"""With fewer blocks a bootstrap interval is too narrow; every report says so."""
MAX_DRAWN = 1 << 23
"""Indices that are drawn at once, 64 MiB of them."""
Z = 1.959963984540054
"""Standard normal quantile of 0.975."""


class Interval(msgspec.Struct, frozen=True, kw_only=True):
    """An estimate with its 95 % interval; bounds are null where there are too few values."""

    estimate: float
    low: float | None = None
    high: float | None = None

    def contains(self, value: float) -> bool:
        """Whether the interval shows no difference from `value`; true without an interval."""
        if self.low is None or self.high is None:
            return True
        return self.low <= value <= self.high


class SurvivalStep(msgspec.Struct, frozen=True, kw_only=True):
    """From `t_s` on, this `share` of the runs has not yet reached the threshold."""

    t_s: float
    share: float


def iqm(values: Sequence[float]) -> float:
    """Interquartile mean: the mean without the lowest and the highest quarter of the values.

    As in rliable (`scipy.stats.trim_mean(values, 0.25)`): whole values are cut, so that below
    four values it is the plain mean.

    >>> iqm([1.0, 2.0, 3.0, 100.0])
    2.5
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    cut = int(0.25 * len(ordered))
    return float(ordered[cut : len(ordered) - cut].mean())


def bootstrap_iqm(values: Sequence[float]) -> Interval:
    """IQM with its percentile bootstrap interval."""
    data = np.asarray(values, dtype=np.float64)
    if len(data) < 2:
        return Interval(estimate=float(data[0]))
    cut = int(0.25 * len(data))
    means = [
        np.sort(data[drawn], axis=1)[:, cut : len(data) - cut].mean(axis=1)
        for drawn in _resampled(len(data))
    ]
    low, high = _percentiles(np.concatenate(means))
    return Interval(estimate=iqm(values), low=low, high=high)


def median(values: Iterable[float]) -> float | None:
    """Median of values some of which may be censored.

    Args:
        values: Infinity means "not within the observed time".

    Returns:
        None without any, or if half of them or more are infinite.

    >>> median([3.0, 1.0, math.inf]), median([1.0, math.inf]), median([])
    (3.0, None, None)
    """
    data = np.asarray(list(values), dtype=np.float64)
    middle = float(_median(data)) if len(data) else math.inf
    return middle if math.isfinite(middle) else None


def bootstrap_median(values: Iterable[float | None]) -> Interval | None:
    """Median with its percentile bootstrap interval, of values some of which may be censored.

    Args:
        values: Infinity means "not within the observed time"; unknown ones are left out.

    Returns:
        None without any, or if half of the values or more are infinite. A bound that is infinite is
        null, as both are where there are fewer than two values.
    """
    data = np.asarray([value for value in values if value is not None], dtype=np.float64)
    estimate = median(data)
    if estimate is None:
        return None
    if len(data) < 2:
        return Interval(estimate=estimate)
    low, high = _percentiles(_median(data[_resample(len(data))]))
    return Interval(estimate=estimate, low=low, high=high if math.isfinite(high) else None)


def median_ratio(ours: Sequence[float], theirs: Sequence[float]) -> Interval:
    """Ratio of two medians with its percentile bootstrap interval; blocks are drawn.

    Args:
        ours: One positive, finite value per block.
        theirs: The values of the same blocks, in the same order.
    """
    a, b = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
    estimate = float(_median(a) / _median(b))
    if len(a) < 2:
        return Interval(estimate=estimate)
    indices = _resample(len(a))
    low, high = _percentiles(_median(a[indices]) / _median(b[indices]))
    return Interval(estimate=estimate, low=low, high=high)


def median_difference(ours: Sequence[float], theirs: Sequence[float]) -> Interval:
    """Difference of two medians with its percentile bootstrap interval; blocks are drawn.

    Args:
        ours: One finite value per block.
        theirs: The values of the same blocks, in the same order.

    >>> median_difference([3.0, 5.0, 7.0], [1.0, 3.0, 5.0]).estimate
    2.0
    """
    a, b = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
    estimate = float(_median(a) - _median(b))
    if len(a) < 2:
        return Interval(estimate=estimate)
    indices = _resample(len(a))
    low, high = _percentiles(_median(a[indices]) - _median(b[indices]))
    return Interval(estimate=estimate, low=low, high=high)


def paired_ratio(ours: Sequence[float], theirs: Sequence[float]) -> Interval:
    """Geometric mean of the ratios within blocks, with its percentile bootstrap interval.

    Args:
        ours: One positive value per block.
        theirs: The values of the same blocks, in the same order.
    """
    logs = np.log(np.asarray(ours, dtype=np.float64) / np.asarray(theirs, dtype=np.float64))
    if len(logs) < 2:
        return Interval(estimate=math.exp(float(logs[0])))
    low, high = _percentiles(logs[_resample(len(logs))].mean(axis=1))
    return Interval(estimate=math.exp(float(logs.mean())), low=math.exp(low), high=math.exp(high))


def paired_difference(ours: Sequence[float], theirs: Sequence[float]) -> Interval:
    """Mean of the differences within blocks, with its percentile bootstrap interval.

    Args:
        ours: One finite value per block.
        theirs: The values of the same blocks, in the same order.

    >>> paired_difference([3.0, 5.0], [1.0, 3.0])
    Interval(estimate=2.0, low=2.0, high=2.0)
    """
    differences = np.asarray(ours, dtype=np.float64) - np.asarray(theirs, dtype=np.float64)
    estimate = float(differences.mean())
    if len(differences) < 2:
        return Interval(estimate=estimate)
    low, high = _percentiles(differences[_resample(len(differences))].mean(axis=1))
    return Interval(estimate=estimate, low=low, high=high)


def restricted_ratio(ours: Sequence[float], theirs: Sequence[float], horizon_s: float) -> Interval:
    """Ratio of the restricted mean times of two systems, bootstrapped over blocks.

    With a common horizon at or before every censoring time, a run that misses the threshold
    counts as the horizon itself, and the restricted mean is the plain mean of the clipped times.

    Args:
        ours: Times of the blocks in seconds; censored ones at or above the horizon.
        theirs: Of the same blocks.
        horizon_s: Common to both.
    """
    a = np.minimum(np.asarray(ours, dtype=np.float64), horizon_s)
    b = np.minimum(np.asarray(theirs, dtype=np.float64), horizon_s)
    estimate = float(a.mean() / b.mean())
    if len(a) < 2:
        return Interval(estimate=estimate)
    indices = _resample(len(a))
    low, high = _percentiles(a[indices].mean(axis=1) / b[indices].mean(axis=1))
    return Interval(estimate=estimate, low=low, high=high)


def wilson(successes: int, total: int) -> Interval:
    """Share of successes with Wilson's score interval (Wilson, 1927).

    >>> interval = wilson(5, 5)
    >>> round(interval.low, 3), interval.high
    (0.566, 1.0)
    """
    share = successes / total
    centre = share + Z**2 / (2 * total)
    spread = Z * math.sqrt(share * (1 - share) / total + Z**2 / (4 * total**2))
    scale = 1 + Z**2 / total
    low, high = (centre - spread) / scale, (centre + spread) / scale
    return Interval(estimate=share, low=max(0.0, low), high=min(1.0, high))


def kaplan_meier(times_s: Sequence[float], is_reached: Sequence[bool]) -> list[SurvivalStep]:
    """Kaplan and Meier's curve of not having reached the threshold (1958).

    Args:
        times_s: When the threshold was reached, or until when the run was observed.
        is_reached: False where it was not: right-censored.

    Returns:
        Steps, the first at 0; ties are reached before they are censored.
    """
    steps = [SurvivalStep(t_s=0.0, share=1.0)]
    share = 1.0
    for t_s in sorted({t for t, reached in zip(times_s, is_reached, strict=True) if reached}):
        num_at_risk = sum(other >= t_s for other in times_s)
        events = zip(times_s, is_reached, strict=True)
        num_reached = sum(other == t_s and reached for other, reached in events)
        share *= 1 - num_reached / num_at_risk
        steps.append(SurvivalStep(t_s=t_s, share=share))
    return steps


def restricted_mean(curve: Sequence[SurvivalStep], horizon_s: float) -> float:
    """Area below a Kaplan-Meier curve up to the horizon: mean time, at most the horizon."""
    area = 0.0
    ends = [step.t_s for step in curve[1:]] + [horizon_s]
    for step, end_s in zip(curve, ends, strict=True):
        area += step.share * max(0.0, min(end_s, horizon_s) - min(step.t_s, horizon_s))
    return area


def survival_median(curve: Sequence[SurvivalStep]) -> float | None:
    """The first time at which at most half have not reached; None if that never happens."""
    return next((step.t_s for step in curve if step.share <= 0.5 + 1e-12), None)


def coefficient_of_variation(values: Sequence[float]) -> float | None:
    """Sample standard deviation over the mean; None below two values."""
    data = np.asarray(values, dtype=np.float64)
    if len(data) < 2 or data.mean() == 0:
        return None
    return float(data.std(ddof=1) / abs(data.mean()))


def mean_over_steps(
    env_steps: Sequence[float], returns: Sequence[float], horizon: float
) -> float | None:
    """The area under a learning curve divided by its env steps, from its first point to a horizon.

    Args:
        env_steps: Never falling. Times in their place give the mean over time.
        returns: At these; straight lines are between them.
        horizon: In env steps; what comes after it does not count.

    Returns:
        None for a curve that spans no env steps before it.
    """
    area = 0.0
    for (a, low), (b, high) in pairwise(zip(env_steps, returns, strict=True)):
        if a < min(b, horizon):
            end = min(b, horizon)
            at_end = low + (end - a) / (b - a) * (high - low)
            area += (end - a) * (low + at_end) / 2
    width = min(horizon, env_steps[-1]) - env_steps[0] if len(env_steps) else 0
    return float(area / width) if width > 0 else None


NumberT = TypeVar("NumberT", int, float)


def common_horizon(curves: Sequence[Sequence[NumberT]]) -> NumberT | None:
    """What all learning curves cover; None if one of them, or all, are missing.

    Args:
        curves: Env steps, or times, of each.
    """
    ends = [points[-1] for points in curves if len(points)]
    return min(ends) if ends and len(ends) == len(curves) else None


def _resample(count: int) -> np.ndarray:
    """Indices drawn with replacement, [NUM_RESAMPLES, count]."""
    return np.concatenate(list(_resampled(count)))


def _resampled(count: int) -> Iterator[np.ndarray]:
    """The same in blocks of rows, for thousands of values."""
    generator = np.random.default_rng(0)
    most = max(1, MAX_DRAWN // count)
    for first in range(0, NUM_RESAMPLES, most):
        yield generator.integers(0, count, size=(min(most, NUM_RESAMPLES - first), count))


def _median(values: np.ndarray) -> np.ndarray:
    """Median over the last axis; the mean of the middle two, so infinite if one of them is."""
    ordered = np.sort(values, axis=-1)
    count = ordered.shape[-1]
    return np.asarray((ordered[..., (count - 1) // 2] + ordered[..., count // 2]) / 2)


def _percentiles(values: np.ndarray) -> tuple[float, float]:
    tail = 100 * (1 - CONFIDENCE) / 2
    if np.isfinite(values).all():
        low, high = np.percentile(values, [tail, 100 - tail])
    else:  # between a number and infinity nothing can be interpolated
        low, high = np.percentile(values, [tail, 100 - tail], method="inverted_cdf")
    return float(low), float(high)
