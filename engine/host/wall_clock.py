"""Detects that the wall clock was set. TianJi does not depend on it, but users' logs do."""

from __future__ import annotations

import time
from collections.abc import Callable

SET_S = 1.0
"""No clock drifts, nor is it slewed, by more than this in a second."""


class WallClock:
    """Compares the wall clock with a monotonic one.

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
