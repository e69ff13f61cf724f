"""Notices that the wall clock was set. Nothing here depends on it, but people's logs do."""

from __future__ import annotations

import time
from collections.abc import Callable

SET_S = 1.0
"""Slower than this in a second no clock drifts, nor is it slewed."""


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
        """By how much it was set since this was asked last; 0 if it was not."""
        offset_s = self._unix_s() - self._steady_s()
        moved_s, self._offset_s = offset_s - self._offset_s, offset_s
        return moved_s if abs(moved_s) >= SET_S else 0.0
