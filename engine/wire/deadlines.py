"""Deadlines of many keys: a thousand peers cost no more per loop iteration than one."""

from __future__ import annotations

import heapq
import math


class Deadlines:
    """Keys with a time each. Setting and taking one costs the logarithm of their number."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, str]] = []
        self._due_s: dict[str, float] = {}

    def set(self, key: str, due_s: float) -> None:
        """Sets the time of `key`; an earlier time is kept."""
        if due_s < self._due_s.get(key, math.inf):
            self._due_s[key] = due_s
            heapq.heappush(self._heap, (due_s, key))

    def get(self, key: str) -> float:
        """When `key` is due; infinite if it has no time."""
        return self._due_s.get(key, math.inf)

    def take(self, now_s: float) -> list[str]:
        """Removes and returns the keys that are due."""
        found = []
        while self._heap and self._heap[0][0] <= now_s:
            due_s, key = heapq.heappop(self._heap)
            if self._due_s.get(key) == due_s:
                del self._due_s[key]
                found.append(key)
        return found

    @property
    def next_s(self) -> float:
        """A lower bound of the next due time; infinite if there is none."""
        return self._heap[0][0] if self._heap else math.inf
