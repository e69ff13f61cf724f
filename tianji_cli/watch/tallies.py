"""Rates, curves and histograms of a run that grows, in bounded memory (pure)."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

RATE_WINDOW_S = 10.0
MIN_RATE_ROWS = 8
"""A window has at least so many rows: a rollout can take longer than the window."""
NUM_BINS = 240
FIRST_WIDTH_S = 0.5
MIN_ROWS_PER_BIN = 8
"""With fewer, a rate would show how rows fall into bins."""
MIN_BINS = 5
MAX_LAGS = 4096
MAX_BARS = 40


class RecentRate:
    """Rate of what rows count, over the last seconds."""

    def __init__(self) -> None:
        self._rows: deque[tuple[float, float]] = deque()
        self._sum = 0.0

    def add(self, t_s: float, amount: float) -> None:
        self._rows.append((t_s, amount))
        self._sum += amount
        while len(self._rows) > MIN_RATE_ROWS and self._rows[1][0] <= t_s - RATE_WINDOW_S:
            self._sum -= self._rows.popleft()[1]

    def per_s(self, now_s: float) -> float | None:
        """Per second up to now; it falls while nothing comes.

        Args:
            now_s: On the run's timeline.

        Returns:
            None before two rows.
        """
        if len(self._rows) < 2:
            return None
        (begin_s, first), (last_s, _) = self._rows[0], self._rows[-1]
        length_s = max(now_s, last_s) - begin_s
        return (self._sum - first) / length_s if length_s > 0 else None


class TimeAxis:
    """Bins of equal width from the first row on; they get twice as wide when there are too many."""

    def __init__(self) -> None:
        self.begin_s: float | None = None
        self.width_s = FIRST_WIDTH_S

    def index_of(self, t_s: float) -> int:
        """The bin of a moment, which can be beyond the last one: then bins must be merged."""
        if self.begin_s is None:
            self.begin_s = t_s
        return max(0, int((t_s - self.begin_s) / self.width_s))

    def middle_s(self, index: int, num_bins: int = 1) -> float:
        """The middle of some bins."""
        return (self.begin_s or 0.0) + (index + num_bins / 2) * self.width_s


@dataclass(frozen=True)
class RateCurve:
    """Rates over time.

    Attributes:
        t_s: Middles of the bins.
        per_s: By what was counted, a rate for each bin.
    """

    t_s: list[float]
    per_s: list[list[float]]


class SumBins:
    """Sums of several counts per time bin.

    Args:
        num_counts: How many.
    """

    def __init__(self, num_counts: int) -> None:
        self._axis = TimeAxis()
        self._num_counts = num_counts
        self._sums: list[list[float]] = []
        self._rows: list[int] = []

    def add(self, t_s: float, count: int, amount: float) -> None:
        """Adds an amount to one of the counts."""
        while (index := self._axis.index_of(t_s)) >= NUM_BINS:
            self._halve()
        while len(self._sums) <= index:
            self._sums.append([0.0] * self._num_counts)
            self._rows.append(0)
        self._sums[index][count] += amount
        self._rows[index] += 1

    def _halve(self) -> None:
        self._axis.width_s *= 2
        self._sums = self._joined(2)
        self._rows = [sum(self._rows[i : i + 2]) for i in range(0, len(self._rows), 2)]

    def _joined(self, factor: int) -> list[list[float]]:
        groups = (self._sums[i : i + factor] for i in range(0, len(self._sums), factor))
        return [[sum(column) for column in zip(*group, strict=True)] for group in groups]

    def curve(self, now_s: float) -> RateCurve:
        """Rates per bin; the last bin only once it is over.

        Args:
            now_s: On the run's timeline.
        """
        factor = self._factor()
        width_s = self._axis.width_s * factor
        sums = self._joined(factor)
        end_s = (self._axis.begin_s or 0.0) + len(sums) * width_s
        if sums and now_s < end_s:
            sums.pop()
        return RateCurve(
            t_s=[self._axis.middle_s(i * factor, factor) for i in range(len(sums))],
            per_s=[[row[c] / width_s for row in sums] for c in range(self._num_counts)],
        )

    def _factor(self) -> int:
        """How many bins make one that has enough rows."""
        factor, num_bins, num_rows = 1, len(self._rows), sum(self._rows)
        while num_bins >= 2 * MIN_BINS * factor and num_rows * factor < MIN_ROWS_PER_BIN * num_bins:
            factor *= 2
        return factor


@dataclass
class ReturnBin:
    """Episodes that ended within one time bin.

    Attributes:
        low, high: Their least and greatest return.
        mean: Of the last episodes, when the bin ended.
        t_s, env_steps: Of the last one.
    """

    low: float
    high: float
    mean: float
    t_s: float
    env_steps: int


class ReturnBins:
    """Returns of episodes over time: the moving mean, and the range within each bin.

    Args:
        window: Episodes in the moving mean.
    """

    def __init__(self, window: int) -> None:
        self._axis = TimeAxis()
        self._window: deque[float] = deque(maxlen=window)
        self._bins: dict[int, ReturnBin] = {}
        self._last = -1
        self.num_episodes = 0

    @property
    def mean(self) -> float | None:
        """Mean of the last episodes; None before the first."""
        return sum(self._window) / len(self._window) if self._window else None

    def add(self, t_s: float, value: float, env_steps: int) -> None:
        """Adds an episode; one whose return is not finite is counted, and is in no mean."""
        self.num_episodes += 1
        if not math.isfinite(value):
            return
        while (index := self._axis.index_of(t_s)) >= NUM_BINS:
            self._halve()
        if index > self._last:
            self._close()
            self._last = index
        self._window.append(value)
        known = self._bins.get(index)
        if known is None:
            self._bins[index] = ReturnBin(value, value, self.mean or 0.0, t_s, env_steps)
            return
        known.low, known.high = min(known.low, value), max(known.high, value)
        known.t_s, known.env_steps = max(known.t_s, t_s), max(known.env_steps, env_steps)

    def _close(self) -> None:
        """Gives the last bin the mean at its end: no episode after it may be part of that."""
        if self._last in self._bins:
            self._bins[self._last].mean = self.mean or 0.0

    def _halve(self) -> None:
        self._close()
        self._axis.width_s *= 2
        merged: dict[int, ReturnBin] = {}
        for index, later in sorted(self._bins.items()):
            earlier = merged.get(index // 2, later)
            merged[index // 2] = ReturnBin(
                low=min(earlier.low, later.low),
                high=max(earlier.high, later.high),
                mean=later.mean,
                t_s=max(earlier.t_s, later.t_s),
                env_steps=max(earlier.env_steps, later.env_steps),
            )
        self._bins, self._last = merged, self._last // 2

    def curve(self) -> list[ReturnBin]:
        """The bins with episodes, in order of time."""
        self._close()
        return [bin_ for _, bin_ in sorted(self._bins.items())]


@dataclass(frozen=True)
class LagBar:
    """Env steps whose lag was in a range, both ends included."""

    low: int
    high: int
    env_steps: int


class LagCounts:
    """Env steps by lag; of a very wide range, by groups of neighbouring lags."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self._unit = 1

    def add(self, steps_by_lag: dict[int, int]) -> None:
        """Adds a batch."""
        for lag, steps in steps_by_lag.items():
            key = lag // self._unit
            self._counts[key] = self._counts.get(key, 0) + steps
            if len(self._counts) > MAX_LAGS:
                self._coarsen()

    def _coarsen(self) -> None:
        self._unit *= 2
        counts, self._counts = self._counts, {}
        for key, steps in counts.items():
            self._counts[key // 2] = self._counts.get(key // 2, 0) + steps

    def bars(self) -> list[LagBar]:
        """At most `MAX_BARS` bars of equal width without gaps, from the least to the greatest."""
        if not self._counts:
            return []
        least, most = min(self._counts), max(self._counts)
        width = -(-(most - least + 1) // MAX_BARS)
        bars = [0] * (-(-(most - least + 1) // width))
        for key, steps in self._counts.items():
            bars[(key - least) // width] += steps
        unit = self._unit
        return [
            LagBar(
                low=(least + i * width) * unit,
                high=(least + (i + 1) * width) * unit - 1,
                env_steps=steps,
            )
            for i, steps in enumerate(bars)
        ]
