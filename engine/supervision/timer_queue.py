"""Timed actions of a process, in one thread and without sleeping."""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable


class TimerQueue:
    """Actions by time on the monotonic clock.

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
