"""Time as a dependency: logic takes a clock, and tests advance it by hand."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol


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
