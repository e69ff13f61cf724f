"""When which of many things is due: a thousand peers cost no more in each turn than one."""

from __future__ import annotations

import heapq
import math


class Deadlines:
    """Keys with a time each. To set one, and to take one that is due, costs its logarithm."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, str]] = []
        self._due_s: dict[str, float] = {}

    def set(self, key: str, due_s: float) -> None:
        """Has `key` taken at that time; an earlier time that it has stands."""
        if due_s < self._due_s.get(key, math.inf):
            self._due_s[key] = due_s
            heapq.heappush(self._heap, (due_s, key))

    def get(self, key: str) -> float:
        """When `key` is due; infinite if it has no time."""
        return self._due_s.get(key, math.inf)

    def take(self, now_s: float) -> list[str]:
        """The keys that are due; they have no time any more."""
        found = []
        while self._heap and self._heap[0][0] <= now_s:
            due_s, key = heapq.heappop(self._heap)
            if self._due_s.get(key) == due_s:
                del self._due_s[key]
                found.append(key)
        return found

    @property
    def next_s(self) -> float:
        """When something is due next, if not before: infinite if nothing is."""
        return self._heap[0][0] if self._heap else math.inf
