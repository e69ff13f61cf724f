"""Decides, while a cell runs, when and how it ends. Pure: records and times in, a verdict out."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from engine.wording import plural
from tianji_cli.bench.systems.raw import EpisodeEnd, RawRecord, Steps
from tianji_cli.bench.tasks.suite import Task
from tianji_cli.bench.tasks.work import Judging

Outcome = Literal["reached", "censored", "crashed", "hung", "garbage", "missing"]
OUTCOMES: tuple[Outcome, ...] = ("reached", "censored", "crashed", "hung", "garbage", "missing")


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
        """When the mean had held for long enough; does not change afterwards."""

    @property
    def mean(self) -> float | None:
        """Of the last window of episodes, or of fewer in the beginning."""
        return sum(self._returns) / len(self._returns) if self._returns else None

    def hear(self, episode_return: float, t_s: float) -> None:
        """Adds an episode, which ended later than all before."""
        self._returns.append(episode_return)
        is_full = len(self._returns) == self._judging.window
        holds = is_full and sum(self._returns) >= self._threshold * self._judging.window
        self._streak = self._streak + 1 if holds else 0
        if self.reached_s is None and self._streak >= self._judging.sustained_episodes:
            self.reached_s = t_s


@dataclass(frozen=True)
class Verdict:
    """A cell must end now.

    Attributes:
        outcome: What it is called.
        detail: Why, for people.
    """

    outcome: Outcome
    detail: str


class StopRule:
    """Follows the records of one cell.

    Args:
        task: Its limits.
        launched_s: CLOCK_MONOTONIC.
    """

    def __init__(self, task: Task, launched_s: float) -> None:
        self._task = task
        self._launched_s = launched_s
        self._crossing = ThresholdDetector(task.judge, task.threshold)
        self._episodes: list[EpisodeEnd] = []
        self._totals: dict[str, int] = {}
        self._progressed_s = launched_s
        self.first_sample_s: float | None = None

    @property
    def env_steps(self) -> int:
        return sum(self._totals.values())

    @property
    def return_mean(self) -> float | None:
        return self._crossing.mean

    @property
    def reached_s(self) -> float | None:
        """CLOCK_MONOTONIC when the threshold had been held for long enough."""
        return self._crossing.reached_s

    def hear(self, records: Iterable[RawRecord], now_s: float) -> None:
        """Takes new records; processes are read one after the other, so times may go back."""
        before = self.env_steps
        for record in sorted(records, key=lambda each: each.t):
            if isinstance(record, Steps):
                if self.first_sample_s is None:
                    self.first_sample_s = record.t
                self._totals[record.source] = record.total
            elif isinstance(record, EpisodeEnd):
                self._episodes.append(record)
                self._crossing.hear(record.episode_return, record.t)
        if self.env_steps > before:
            self._progressed_s = now_s

    def verdict(self, now_s: float) -> Verdict | None:
        """Whether the cell ends now; None if it continues."""
        task = self._task
        if self.first_sample_s is None:
            if now_s - self._launched_s > task.start_s:
                return Verdict("hung", f"no first sample within {task.start_s:.0f} s of launch")
            return None
        trained_s = now_s - self.first_sample_s
        if task.env_steps is not None and self.env_steps >= task.env_steps:
            wanted = plural(task.env_steps, "env step")
            return Verdict("censored", f"the {wanted} asked for were collected")
        is_enough = task.env_steps is None and trained_s >= task.min_s
        if self.reached_s is not None and is_enough and self._holds_in_order():
            return Verdict("reached", "the threshold was reached")
        if trained_s >= task.budget_s:
            return Verdict("censored", f"the budget of {task.budget_s:.0f} s was used up")
        if now_s - self._progressed_s > task.stall_s:
            return Verdict("hung", f"no new env step for {task.stall_s:.0f} s")
        return None

    def _holds_in_order(self) -> bool:
        """Whether it was reached as `measure` will see it: with all episodes in order of time.

        A poll can deliver episodes that ended before those of an earlier poll, so the sequence as
        received can differ. If the threshold does not hold, judging continues on the true sequence.
        """
        self._crossing = ThresholdDetector(self._task.judge, self._task.threshold)
        for episode in sorted(self._episodes, key=lambda each: each.t):
            self._crossing.hear(episode.episode_return, episode.t)
        return self.reached_s is not None
