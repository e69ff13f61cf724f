"""Mean returns of a run, of the team and of each agent and policy, and when one has been held."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from msgspec import UnsetType

from engine.spec import StopSpec
from engine.trace.records import Episode, Evaluation
from engine.trace.team_returns import return_of


class MeanWindow:
    """The mean of the last values."""

    def __init__(self, size: int) -> None:
        self._values: deque[float] = deque(maxlen=size)

    def add(self, value: float) -> None:
        self._values.append(value)

    @property
    def is_full(self) -> bool:
        return len(self._values) == self._values.maxlen

    @property
    def mean(self) -> float | None:
        """None before the first value."""
        return sum(self._values) / len(self._values) if self._values else None


class NamedWindows:
    """A window for each name; there are none until a row has any."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._windows: dict[str, MeanWindow] = {}

    def add(self, returns: Mapping[str, float] | UnsetType) -> None:
        """Adds one value for each name."""
        if not returns:
            return
        for name, value in returns.items():
            if name not in self._windows:
                self._windows[name] = MeanWindow(self._size)
            self._windows[name].add(value)

    @property
    def means(self) -> dict[str, float]:
        """By name."""
        means = {name: window.mean for name, window in self._windows.items()}
        return {name: mean for name, mean in means.items() if mean is not None}


class RunReturns:
    """Adds up the returns of episodes and evaluations.

    Args:
        stop: Threshold, window, and whose return counts.

    Attributes:
        evaluation: The newest one.
    """

    def __init__(self, stop: StopSpec) -> None:
        self._stop = stop
        self._judged = MeanWindow(stop.return_window)
        self._team = MeanWindow(stop.return_window)
        self._agents = NamedWindows(stop.return_window)
        self._policies = NamedWindows(stop.return_window)
        self.evaluation: Evaluation | None = None
        self._streak = 0
        """Episodes, or evaluations, since the mean last fell below the threshold."""

    def add_episode(self, row: Episode) -> bool:
        """Adds an episode; returns whether the threshold has now been held for long enough."""
        stop = self._stop
        self._judged.add(return_of(row, stop.return_of))
        if row.agent_returns:
            self._team.add(row.episode_return)
            self._agents.add(row.agent_returns)
            self._policies.add(row.policy_returns)
        mean = self._judged.mean
        if stop.judge != "training" or not self._judged.is_full or mean is None:
            return False
        return self._holds(mean, 1 + (stop.sustained - 1) * stop.return_window)

    def add_evaluation(self, row: Evaluation) -> bool:
        """Adds an evaluation; returns as above."""
        self.evaluation, stop = row, self._stop
        if stop.judge != "evaluation":
            return False
        return self._holds(return_of(row, stop.return_of), stop.sustained)

    def _holds(self, mean: float, wanted_streak: int) -> bool:
        if self._stop.return_threshold is None:
            return False
        self._streak = self._streak + 1 if mean >= self._stop.return_threshold else 0
        return self._streak >= wanted_streak

    @property
    def mean(self) -> float | None:
        """Of the last training episodes: of whom the threshold is about."""
        return self._judged.mean

    @property
    def evaluation_mean(self) -> float | None:
        """The same of the newest evaluation; None before the first."""
        return None if self.evaluation is None else return_of(self.evaluation, self._stop.return_of)

    @property
    def team(self) -> float | None:
        """Mean return of a team; None if there is one agent."""
        return self._team.mean

    @property
    def agents(self) -> dict[str, float]:
        """Mean return of each agent of a team."""
        return self._agents.means

    @property
    def policies(self) -> dict[str, float]:
        """Mean return of each policy of a team."""
        return self._policies.means
