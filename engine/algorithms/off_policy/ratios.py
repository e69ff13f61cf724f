"""Diagnostics of importance ratios: how far the policy that learns is from those that acted.

    ln rho_i = ln pi(a_i | s_i) - ln mu(a_i | s_i)

Gradient steps compute these logarithms anyway, so a loss reports them beside its metrics. They are
summed up for a whole batch and by the lag of its samples, once in so many optimiser steps that it
costs next to nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

EVERY_STEPS = 64
"""Optimiser steps of which at most one batch is summed up; each batch with more of them is."""
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
        first: Before the first optimiser step, of its minibatch; of the shape of `last`.
        last: In the last optimiser step of each sample: [T, B] or [T, B, agents] of rollouts,
            [updates, batch size] of samples from replay.
        limits: Of ln rho, beyond which the loss clips or truncates a ratio; None if it does not.
    """

    first: Tensor
    last: Tensor
    limits: tuple[float, float] | None = None


def spread(
    values: Sequence[Tensor], rows: Sequence[Tensor], valid: Tensor, *, has_memory: bool
) -> Tensor:
    """What minibatches report of their samples, in the places of these samples.

    Args:
        values: Of each minibatch, [N x agents] or more, of which the rest is left out; with a
            memory [T x N x agents], time first.
        rows: Of each minibatch, [N]: steps of the batch, or columns with a memory.
        valid: Of a batch, bool [T, B, agents].
        has_memory: Whether a row is the whole sequence of one environment.

    Returns:
        [T, B, agents], NaN elsewhere.
    """
    num_steps, num_agents = len(valid), valid.shape[-1]
    found = torch.full(valid.shape, math.nan)
    steps = found.view(-1, num_agents)
    for told, held in zip(values, rows, strict=True):
        if has_memory:
            size = num_steps * len(held) * num_agents
            found[:, held] = told[:size].view(num_steps, len(held), num_agents)
        else:
            steps[held] = told[: len(held) * num_agents].view(-1, num_agents)
    return found.where(valid, math.nan)


def is_due(before: int, after: int) -> bool:
    """Whether the batch is summed up that took a learner from `before` to `after` optimiser steps:
    the first one, and each that completes another `EVERY_STEPS`."""
    return before == 0 or before // EVERY_STEPS != after // EVERY_STEPS


class ReportingEpochs(Protocol):
    """The hyperparameters of an update that goes through one batch several times."""

    @property
    def diagnostics(self) -> bool: ...

    @property
    def num_epochs(self) -> int: ...

    @property
    def limits(self) -> tuple[float, float]: ...


def of_epochs(
    config: ReportingEpochs,
    num_updates: int,
    told: Tensor,
    order: Tensor | Sequence[Tensor],
    valid: Tensor,
    memory: int,
) -> LogRatios | None:
    """The ratios of an update that goes through one batch several times.

    Args:
        config: Of the update.
        num_updates: Optimiser steps of the learner, these included.
        told: ln rho that each optimiser step reported, [steps, ...]; see `spread`.
        order: Rows of all minibatches; the last epochs may not have been taken.
        valid: Of the batch, bool [T, B, agents].
        memory: Size of the state of the core; with one, a row is the whole sequence of one
            environment.

    Returns:
        None without `diagnostics`, and if it is not due.
    """
    if not (config.diagnostics and is_due(num_updates - len(told), num_updates)):
        return None
    per_epoch = len(order) // config.num_epochs
    first, last, valid = told[:1].cpu(), told[-per_epoch:].cpu(), valid.cpu()
    rows = list(order)
    taken = rows[len(told) - per_epoch : len(told)]
    return LogRatios(
        spread(list(first), rows[:1], valid, has_memory=memory > 0),
        spread(list(last), taken, valid, has_memory=memory > 0),
        config.limits,
    )


def of_first_step(told: Tensor) -> LogRatios:
    """The ratios of optimiser steps, each on its own samples, [steps, N]."""
    last = told.cpu()
    first = torch.full_like(last, math.nan)
    first[0] = last[0]
    return LogRatios(first, last)


@dataclass(frozen=True)
class RatioStatistics:
    """What the ratios of one update say.

    Attributes:
        metrics: Over the whole batch, by the names of `METRICS`.
        by_lag: The same for the samples of each bin of lags, by the names of fields of
            `engine.trace.records.Staleness`; a bin is named by its smallest lag.
        truncates: Whether the loss limits ratios on one side only, as V-trace does: about half of
            them are then beyond the limit, whatever happens.
    """

    metrics: dict[str, float]
    by_lag: dict[str, dict[int, float]]
    truncates: bool = False


def lag_bins(lag: WholeArray) -> WholeArray:
    """The smallest lag of the bin of each.

    >>> lag_bins(np.array([0, 3, 7, 8, 15, 16, 100])).tolist()
    [0, 3, 7, 8, 8, 16, 64]
    """
    powers = 2 ** np.floor(np.log2(np.maximum(lag, 1))).astype(np.int64)
    return np.where(lag < EXACT_LAGS, lag, powers)


def summarise(ratios: LogRatios, lag: WholeArray) -> RatioStatistics | None:
    """Sums up the ratios of an update; None if no sample counts.

    Args:
        ratios: Of the update.
        lag: Of the samples in versions: of the columns of rollouts [B], or of the shape of the
            ratios.
    """
    last, first = ratios.last.numpy(), ratios.first.numpy()
    bins, inverse = np.unique(lag_bins(lag), return_inverse=True)
    inverse = inverse.reshape(lag.shape)
    if lag.ndim == 1:
        inverse = inverse.reshape(-1, *(1 for _ in last.shape[2:]))
    places = np.broadcast_to(inverse, last.shape)
    counts_last, counts_first = ~np.isnan(last), ~np.isnan(first)
    log_ratio, place = np.minimum(last[counts_last], MAX_LOG_RATIO), places[counts_last]
    if not len(log_ratio):
        return None
    sums = _Sums.of(log_ratio.astype(np.float64), place, len(bins), ratios.limits)
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
    return RatioStatistics(metrics, by_lag, truncates)


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
        limits: tuple[float, float] | None,
    ) -> _Sums:
        """Sums of `exp(log_ratio)` [N] by bin, `place` [N]."""
        ratio = np.exp(log_ratio)
        largest = np.zeros(num_bins)
        np.maximum.at(largest, place, ratio)
        clipped = None
        if limits is not None:
            is_out = (log_ratio < limits[0] - TOLERANCE) | (log_ratio > limits[1] + TOLERANCE)
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
