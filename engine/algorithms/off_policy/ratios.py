"""Diagnostics of importance ratios: how far the policy that learns is from those that acted.

    ln rho_i = ln pi(a_i | s_i) - ln mu(a_i | s_i)

They are computed before and after an update, in a pass of the network over its samples, and summed
up for the whole batch and by lag: of one update in so many optimiser steps that it costs next to
nothing. Optimiser steps, and what is compiled of them, know nothing of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

WINDOW = 20
"""Updates that are diagnosed first, so that there is something to judge soon."""
EVERY_STEPS = 1024
"""Optimiser steps of which at most one update is diagnosed then; each with more of them is."""
EVERY_UPDATES = 256
"""Updates of which one is diagnosed, should they have so few steps that this is more often."""
EXACT_LAGS = 8
"""Lags below it are told apart; larger ones up to the next power of two are not."""
MAX_LOG_RATIO = 20.0
"""Larger logarithms count as this one, so that squares of ratios and their sums are finite."""
DIGITS = 7
"""After the point, of what is traced."""
TOLERANCE = 1e-3
"""Of ln rho, within which rounding can take a ratio beyond its limit."""
METRICS = ("ess", "clip_fraction", "ratio_max", "behaviour_kl", "log_ratio_first")

FloatArray = npt.NDArray[np.floating]
WholeArray = npt.NDArray[np.integer]


@dataclass(frozen=True)
class LogRatios:
    """ln rho of an update; NaN where there is no sample, or one that does not count.

    Attributes:
        first: Before the update: [T, B] or [T, B, agents] of rollouts, [1, batch size] of samples
            from replay, those of the first optimiser step.
        last: After the update; of the same shape.
        limits: Of the logarithm of a ratio, beyond which the loss clips or truncates it; None if it
            does not.
        is_proximal: Whether these limits are about the ratio to the policy before the update, as
            those of a decoupled loss, and not about rho.
    """

    first: Tensor
    last: Tensor
    limits: tuple[float, float] | None = None
    is_proximal: bool = False

    @property
    def limited(self) -> Tensor:
        """Logarithms of the ratios that `limits` are about."""
        return self.last - self.first if self.is_proximal else self.last


class Diagnosed(Protocol):
    """What says when to diagnose; see `engine.algorithms.base.LearnerState`."""

    @property
    def num_updates(self) -> int: ...

    @property
    def num_diagnosed(self) -> int: ...


def is_due(state: Diagnosed, num_steps: int) -> bool:
    """Whether the next update of a learner is diagnosed: the first `WINDOW`, then each whose
    optimiser steps, `num_steps`, complete another `EVERY_STEPS` or those of `EVERY_UPDATES`, even
    if it ends early. Two passes over the samples of such an update are then below 2 % of them all.
    """
    before, after = state.num_updates, state.num_updates + num_steps
    every = min(EVERY_STEPS, EVERY_UPDATES * num_steps)
    return state.num_diagnosed < WINDOW or before // every != after // every


@dataclass(frozen=True)
class RatioStatistics:
    """What the ratios of one update say.

    Attributes:
        metrics: Over the whole batch, by the names of `METRICS`.
        by_lag: The same for the samples of each bin of lags, by the names of fields of
            `engine.trace.records.Staleness`; a bin is named by its smallest lag.
        truncates: Whether the loss limits ratios on one side only, as V-trace does: about half of
            them are then beyond the limit, whatever happens.
        is_proximal: See `LogRatios`; such ratios do not depend on the age of samples.
        mismatch: Mean |ln rho| of the samples of lag 0 before the update, which is 0 if what acts
            and what learns agree; None if there are none.
    """

    metrics: dict[str, float]
    by_lag: dict[str, dict[int, float]]
    truncates: bool = False
    is_proximal: bool = False
    mismatch: float | None = None


def lag_bins(lag: WholeArray) -> WholeArray:
    """The smallest lag of the bin of each.

    >>> lag_bins(np.array([0, 3, 7, 8, 15, 16, 100])).tolist()
    [0, 3, 7, 8, 8, 16, 64]
    """
    powers = 2 ** np.floor(np.log2(np.maximum(lag, 1))).astype(np.int64)
    return np.where(lag < EXACT_LAGS, lag, powers)


def summarise(ratios: LogRatios, lag: WholeArray) -> RatioStatistics | None:
    """Sums up the ratios of an update; None if no sample counts, as those do not that are infinite:
    something in the batch was no number.

    Args:
        ratios: Of the update.
        lag: Of the samples in versions: of the columns of rollouts [B], or of the shape of the
            ratios.
    """
    of_each = (ratios.first, ratios.last, ratios.limited)
    first, last, limited_of_all = (each.cpu().numpy() for each in of_each)
    bins, inverse = np.unique(lag_bins(lag), return_inverse=True)
    inverse = inverse.reshape(lag.shape)
    if lag.ndim == 1:
        inverse = inverse.reshape(-1, *(1 for _ in last.shape[2:]))
    places = np.broadcast_to(inverse, last.shape)
    counts_last, counts_first = np.isfinite(last), np.isfinite(first)
    log_ratio, place = np.minimum(last[counts_last], MAX_LOG_RATIO), places[counts_last]
    if not len(log_ratio):
        return None
    limited = limited_of_all[counts_last]
    sums = _Sums.of(log_ratio.astype(np.float64), place, len(bins), limited, ratios.limits)
    moved, place = np.abs(first[counts_first]), places[counts_first]
    furthest = np.full(len(bins), -1.0)
    np.maximum.at(furthest, place, moved)
    metrics = sums.total.described(0)
    if len(moved):
        metrics["log_ratio_first"] = _short(float(moved.mean()))
    by_lag: dict[str, dict[int, float]] = {}
    for i, least in enumerate(bins.tolist()):
        if furthest[i] >= 0:
            by_lag.setdefault("log_ratio_first_by_lag", {})[least] = _short(float(furthest[i]))
        if sums.count[i]:
            by_lag.setdefault("ratios_by_lag", {})[least] = float(sums.count[i])
            for name, value in sums.described(i).items():
                by_lag.setdefault(f"{name}_by_lag", {})[least] = value
    truncates = ratios.limits is not None and ratios.limits[0] == -math.inf
    own = moved[place == 0] if bins[0] == 0 else moved[:0]
    mismatch = float(own.mean()) if len(own) else None
    return RatioStatistics(metrics, by_lag, truncates, ratios.is_proximal, mismatch)


@dataclass(frozen=True)
class _Sums:
    """Sums over the ratios of each bin, float64 [bins]; `clipped` is None if none can be."""

    count: FloatArray
    ratio: FloatArray
    square: FloatArray
    divergence: FloatArray
    largest: FloatArray
    clipped: FloatArray | None

    @classmethod
    def of(
        cls,
        log_ratio: FloatArray,
        place: WholeArray,
        num_bins: int,
        limited: FloatArray,
        limits: tuple[float, float] | None,
    ) -> _Sums:
        """Sums of `exp(log_ratio)` [N] by bin, `place` [N], and of `limited` [N] beyond limits."""
        ratio = np.exp(log_ratio)
        largest = np.zeros(num_bins)
        np.maximum.at(largest, place, ratio)
        clipped = None
        if limits is not None:
            is_out = (limited < limits[0] - TOLERANCE) | (limited > limits[1] + TOLERANCE)
            clipped = _added(place, is_out, num_bins)
        return cls(
            _added(place, None, num_bins),
            _added(place, ratio, num_bins),
            _added(place, ratio * ratio, num_bins),
            _added(place, ratio - 1 - log_ratio, num_bins),
            largest,
            clipped,
        )

    @property
    def total(self) -> _Sums:
        """Over all bins, as one."""
        return _Sums(
            self.count.sum(keepdims=True),
            self.ratio.sum(keepdims=True),
            self.square.sum(keepdims=True),
            self.divergence.sum(keepdims=True),
            self.largest.max(keepdims=True),
            None if self.clipped is None else self.clipped.sum(keepdims=True),
        )

    def described(self, bin_: int) -> dict[str, float]:
        """The statistics of one bin, which is not empty."""
        count, square = float(self.count[bin_]), float(self.square[bin_])
        shown = {
            "ess": _short(float(self.ratio[bin_]) ** 2 / (count * square) if square else 1.0),
            "ratio_max": _short(float(self.largest[bin_])),
            "behaviour_kl": _short(float(self.divergence[bin_]) / count),
        }
        if self.clipped is not None:
            shown["clip_fraction"] = _short(float(self.clipped[bin_]) / count)
        return shown


def _short(value: float) -> float:
    """To as many digits as a trace needs."""
    return round(value, DIGITS)


def _added(place: WholeArray, values: npt.NDArray[np.generic] | None, num_bins: int) -> FloatArray:
    """Sums of values by bin, float64 [bins]; None counts."""
    return np.bincount(place, values, num_bins).astype(np.float64)
