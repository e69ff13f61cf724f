"""Rates of what is counted."""

from __future__ import annotations

from collections import deque


class RateWindow:
    """Rate of a growing counter over a sliding window.

    Args:
        window_s: Length of the window.
    """

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._points: deque[tuple[float, int]] = deque()

    def add(self, now_s: float, total: int) -> None:
        self._points.append((now_s, total))
        while len(self._points) > 2 and self._points[1][0] <= now_s - self._window_s:
            self._points.popleft()

    def per_s(self) -> float:
        """Increase per second over the window; 0 before there are two points in time."""
        if len(self._points) < 2:
            return 0.0
        (t0, n0), (t1, n1) = self._points[0], self._points[-1]
        return (n1 - n0) / (t1 - t0) if t1 > t0 else 0.0
