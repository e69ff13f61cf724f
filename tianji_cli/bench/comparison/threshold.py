"""Whether a threshold was reached and held. Pure; harness and report use the same."""

from __future__ import annotations

from collections import deque

from tianji_cli.bench.tasks.work import Judging


class ThresholdDetector:
    """Follows the returns of one system's training episodes.

    Args:
        judging: The rule.
        threshold: For the mean.

    >>> crossing = ThresholdDetector(Judging(window=2, sustained_episodes=2), 10.0)
    >>> for t_s, value in enumerate([30.0, 30.0, 0.0, 0.0, 30.0, 30.0]):
    ...     crossing.hear(value, float(t_s))
    >>> crossing.reached_s  # at 1 and at 2 the mean holds
    2.0
    """

    def __init__(self, judging: Judging, threshold: float) -> None:
        self._judging = judging
        self._threshold = threshold
        self._returns: deque[float] = deque(maxlen=judging.window)
        self._streak = 0
        self.reached_s: float | None = None
        """When the mean had held for long enough; from then on it stays."""

    @property
    def mean(self) -> float | None:
        """Of the last window of episodes, or of fewer in the beginning."""
        return sum(self._returns) / len(self._returns) if self._returns else None

    def hear(self, episode_return: float, t_s: float) -> None:
        """An episode has ended, later than all before."""
        self._returns.append(episode_return)
        is_full = len(self._returns) == self._judging.window
        holds = is_full and sum(self._returns) >= self._threshold * self._judging.window
        self._streak = self._streak + 1 if holds else 0
        if self.reached_s is None and self._streak >= self._judging.sustained_episodes:
            self.reached_s = t_s
