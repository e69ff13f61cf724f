"""The adaptive bound on lag, `staleness.max_lag: auto`: as small as costs no throughput.

A larger bound lets actors collect further ahead of the learner. What that gains depends on how
unevenly they collect, how long an update takes, and who shares cores; so it is not computed, but
tried. In a *comparison* the learner trains for some windows of time under one bound and then under
another. The larger one is used from then on if it pays: if its throughput is higher by more than
`MARGIN`, and by more than `DEVIATIONS` standard errors. Otherwise the smaller one is.

- Twice the bound is tried if the learner has waited for samples while actors were held back.
- A quarter less is tried whenever that is due: the bound may be larger than it needs to be.
- If the effective sample size of importance ratios falls below a floor, the bound is lowered
  without a comparison, and no larger one is tried for some time.

Each comparison of two bounds doubles the time until the next one of these two, and so does each
lowering for the sample size. So there are at most logarithmically many changes, and the share of
time that is spent on trials goes to zero, whatever the measurements say.

Pure: no clock. `engine.roles.lag_windows` measures.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TypeAlias

from engine.spec import LEAST_AUTO_LAG, MOST_AUTO_LAG

WINDOWS = 5
"""Under each bound, in a comparison."""
MARGIN = 0.05
"""By which a larger bound must raise throughput. Also the least share of waiting to try one: who
waits for a share w of the time can become faster by at most w / (1 - w)."""
DEVIATIONS = 3.5
"""Standard errors by which throughput must be higher: of five and five windows without a
difference, four pairs in a thousand pass (Student's t)."""
FIRST_REST = 20
"""Windows until two bounds are compared for the second time; twice as many for the third, ..."""
WINDOW_BATCHES = 8
"""The fewest batches of a window."""

_Pair: TypeAlias = tuple[int, int]
"""A smaller and a larger bound."""


@dataclass(frozen=True)
class MeasuredWindow:
    """What was measured in a window of time.

    Attributes:
        env_steps_per_s: Env steps that the learner consumed.
        learner_waited: Share of the time for which it waited for samples.
        actors_held: Share of their time for which actors waited to collect.
        ess: Mean effective sample size of the batches that were diagnosed, as a share of the
            batch; None if none was.
    """

    env_steps_per_s: float
    learner_waited: float
    actors_held: float
    ess: float | None = None


@dataclass(frozen=True)
class Decision:
    """What a controller decides at the end of a window.

    Attributes:
        before, bound: Until now, and from now on; equal if a trial was worthwhile.
        why: With the figures.
    """

    before: int
    bound: int
    why: str


@dataclass(frozen=True)
class _Comparison:
    """Of two bounds, under way: `began_at` is the one that the windows in `base` are of."""

    pair: _Pair
    began_at: int
    base: tuple[MeasuredWindow, ...]


class AdaptiveBound:
    """Moves the bound on lag of one learner.

    Args:
        least_ess: The floor of the effective sample size, as a share of the batch.
        most: The largest bound.
    """

    def __init__(self, least_ess: float, most: int = MOST_AUTO_LAG) -> None:
        self._least_ess = least_ess
        self._most = most
        self.bound = LEAST_AUTO_LAG
        """In use now."""
        self._now = 0
        """Windows so far."""
        self._unsettled = 0
        """Windows to come in which rollouts of the bound before can still be trained: as many
        batches as it is large."""
        self._recent: deque[MeasuredWindow] = deque(maxlen=WINDOWS)
        self._ess: deque[float] = deque(maxlen=WINDOWS)
        """Both under this bound, the newest last."""
        self._comparison: _Comparison | None = None
        self._comparisons: dict[_Pair, int] = {}
        """How many there were."""
        self._due: dict[_Pair, int] = {}
        """When there may be another one."""
        self._ceiling = most
        self._ceiling_until = 0
        self._num_lowered = 0

    def observe(self, window: MeasuredWindow) -> Decision | None:
        """Takes a window; None if nothing is decided."""
        self._now += 1
        if self._unsettled:
            self._unsettled -= 1
            return None
        self._recent.append(window)
        if window.ess is not None:
            self._ess.append(window.ess)
        if self.bound > LEAST_AUTO_LAG and self._is_ess_low():
            return self._lower()
        if len(self._recent) < WINDOWS:
            return None
        return self._begin() if self._comparison is None else self._conclude(self._comparison)

    def _is_ess_low(self) -> bool:
        """One window may be an outlier, so there must be two."""
        return len(self._ess) > 1 and fmean(self._ess) < self._least_ess

    def _lower(self) -> Decision:
        """Back to where a trial began, else to half the bound."""
        before, trial = self.bound, self._comparison
        lower = before // 2 if trial is None else min(trial.pair[0], before - 1)
        self._ceiling = before - 1
        self._ceiling_until = self._now + FIRST_REST * 2**self._num_lowered
        self._num_lowered += 1
        why = (
            f"the effective sample size fell to {fmean(self._ess):.0%} of the batch, below"
            f" {self._least_ess:.0%}"
        )
        return self._move(max(lower, LEAST_AUTO_LAG), why)

    def _begin(self) -> Decision | None:
        """Begins a comparison if one is due."""
        pair = self._next_pair()
        if pair is None:
            return None
        trial = _Comparison(pair, self.bound, tuple(self._recent))
        other = pair[0] if pair[1] == self.bound else pair[1]
        return self._move(other, f"a trial: {self._waits()}", trial)

    def _next_pair(self) -> _Pair | None:
        ceiling = self._ceiling if self._now < self._ceiling_until else self._most
        up = (self.bound, min(2 * self.bound, ceiling))
        if up[0] < up[1] and self._is_due(up) and self._wants_more():
            return up
        down = (self.bound - max(self.bound // 4, 1), self.bound)
        return down if down[0] >= LEAST_AUTO_LAG and self._is_due(down) else None

    def _is_due(self, pair: _Pair) -> bool:
        return self._now >= self._due.get(pair, 0)

    def _wants_more(self) -> bool:
        """Whether a larger bound can pay at all, and samples are worth enough under this one."""
        waited = fmean(window.learner_waited for window in self._recent)
        held = fmean(window.actors_held for window in self._recent)
        return min(waited, held) >= MARGIN and not self._is_ess_low()

    def _conclude(self, trial: _Comparison) -> Decision:
        low, high = trial.pair
        is_up = trial.began_at == low
        before, after = _rates(trial.base), _rates(self._recent)
        of_low, of_high = (before, after) if is_up else (after, before)
        is_better = pays(of_low, of_high)
        number = self._comparisons.get(trial.pair, 0)
        self._comparisons[trial.pair] = number + 1
        self._due[trial.pair] = self._now + FIRST_REST * 2**number
        why = (
            f"{high} {'pays' if is_better else 'does not pay'}: {fmean(of_high):,.0f} env steps/s"
            f" with {high} and {fmean(of_low):,.0f} with {low}, standard error of the difference"
            f" {standard_error(of_low, of_high):,.0f}; {self._waits()}"
        )
        return self._move(high if is_better else low, why)

    def _move(self, bound: int, why: str, trial: _Comparison | None = None) -> Decision:
        before, self.bound, self._comparison = self.bound, bound, trial
        if bound != before:
            self._unsettled = 1 + max(before, bound) // WINDOW_BATCHES
            self._recent.clear()
            self._ess.clear()
        return Decision(before, bound, why)

    def _waits(self) -> str:
        """What was measured under the bound so far, for people."""
        waited = fmean(window.learner_waited for window in self._recent)
        held = fmean(window.actors_held for window in self._recent)
        ess = f", effective sample size {fmean(self._ess):.0%}" if self._ess else ""
        return f"the learner waited {waited:.0%} of the time, actors {held:.0%}{ess}"


def pays(of_low: Sequence[float], of_high: Sequence[float]) -> bool:
    """Whether throughput is higher under the larger of two bounds, by more than margin and noise.

    Args:
        of_low, of_high: Env steps per second, of two windows or more each.

    >>> pays([100, 101, 99], [107, 108, 106]), pays([100, 101, 99], [103, 104, 102])
    (True, False)
    >>> pays([100, 150, 50], [107, 157, 57])
    False
    """
    gain = fmean(of_high) - fmean(of_low)
    error = standard_error(of_low, of_high)
    return gain > max(MARGIN * fmean(of_low), DEVIATIONS * error)


def standard_error(of_low: Sequence[float], of_high: Sequence[float]) -> float:
    """Of the difference of the means of two samples."""
    return math.sqrt(_squared_error(of_low) + _squared_error(of_high))


def _squared_error(values: Sequence[float]) -> float:
    """Of their mean."""
    mean, count = fmean(values), len(values)
    return sum((value - mean) ** 2 for value in values) / (count * (count - 1))


def _rates(windows: Collection[MeasuredWindow]) -> list[float]:
    return [window.env_steps_per_s for window in windows]
