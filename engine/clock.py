"""Time as a dependency: clocks and timed actions, which tests advance by hand."""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

SET_S = 1.0
"""No clock drifts, nor is it slewed, by more than this in a second."""


class Clock(Protocol):
    def now_s(self) -> float:
        """Seconds since this clock's origin; never goes backwards."""
        ...


@dataclass(frozen=True)
class RunClock:
    """Seconds on the coordinator's timeline.

    Args:
        origin_ns: The run's origin on this host's CLOCK_MONOTONIC. Processes of one host share
            that clock; for another host the coordinator's origin is shifted by the measured offset.
    """

    origin_ns: int

    @classmethod
    def start_now(cls) -> RunClock:
        return cls(time.monotonic_ns())

    def now_s(self) -> float:
        return (time.monotonic_ns() - self.origin_ns) * 1e-9


@dataclass
class ManualClock:
    """A clock for tests: it changes only when `advance` is called."""

    time_s: float = 0.0

    def now_s(self) -> float:
        return self.time_s

    def advance(self, seconds: float) -> None:
        self.time_s += seconds


class WallClock:
    """Detects that the wall clock was set: TianJi does not depend on it, but users' logs do.

    Args:
        unix_s, steady_s: The clocks; tests give their own.
    """

    def __init__(
        self,
        unix_s: Callable[[], float] = time.time,
        steady_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._unix_s, self._steady_s = unix_s, steady_s
        self._offset_s = unix_s() - steady_s()

    def moved_s(self) -> float:
        """Seconds by which it was set since the last call; 0 if it was not."""
        offset_s = self._unix_s() - self._steady_s()
        moved_s, self._offset_s = offset_s - self._offset_s, offset_s
        return moved_s if abs(moved_s) >= SET_S else 0.0


class TimerQueue:
    """Timed actions of a process, in one thread and without sleeping.

    Args:
        now_s: The clock; tests give their own.
    """

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._items: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def add(self, after_s: float, action: Callable[[], None]) -> None:
        """Calls `action` once, after this many seconds."""
        heapq.heappush(self._items, (self._now_s() + after_s, next(self._numbers), action))

    def every(self, period_s: float, action: Callable[[], None]) -> None:
        """Calls `action` now and then every `period_s`, counted from the end of each call."""

        def again() -> None:
            action()
            self.add(period_s, again)

        self.add(0.0, again)

    def timeout_s(self) -> float | None:
        """Seconds until the next action; None if there is none."""
        return max(0.0, self._items[0][0] - self._now_s()) if self._items else None

    def run_due(self) -> None:
        """Calls all actions that are due."""
        now_s = self._now_s()
        while self._items and self._items[0][0] <= now_s:
            heapq.heappop(self._items)[2]()
