"""The returns of a run at even shares of its budget, read from its traces as they grow."""

from __future__ import annotations

from collections import deque
from pathlib import Path

from engine.trace.records import Episode, Ledger
from engine.trace.team_returns import return_of
from tianji_cli.bench.search.board import NUM_POINTS
from tianji_cli.storage.follow import TableFollower


class ReturnProgress:
    """The mean return of the last episodes, each time another share of the budget is used up.

    Args:
        run: The run's directory, which need not exist yet.
        window: Episodes in the mean; until there are so many, those there are.
        budget_s: Seconds of training.
        return_of: The agent or policy of a team whose return counts; None: the whole environment.

    Attributes:
        returns: By point, from 1 to NUM_POINTS; one before the first episode is left out.
    """

    def __init__(
        self, run: Path, window: int, budget_s: float, return_of: str | None = None
    ) -> None:
        self._return_of = return_of
        self._episodes = TableFollower(run, Episode)
        self._clock = TableFollower(run, Ledger)
        self._window: deque[float] = deque(maxlen=window)
        self._point_s = budget_s / NUM_POINTS
        self._next = 1
        self.returns: dict[int, float] = {}

    def look(self) -> bool:
        """Reads what was written since; whether there is a new return."""
        before = len(self.returns)
        clock = self._clock.read()  # first: episodes that ended before are written by then
        is_behind = True
        while is_behind:
            found = self._episodes.read()
            is_behind = found.is_behind
            for episode in found.rows:
                self.passed(episode.t_s)
                self._window.append(return_of(episode, self._return_of))
        if clock.rows:
            self.passed(clock.rows[-1].t_s)
        return len(self.returns) > before

    def passed(self, t_s: float) -> None:
        """So many seconds of training have passed."""
        while self._next <= NUM_POINTS and t_s >= self._next * self._point_s:
            if self._window:
                self.returns[self._next] = sum(self._window) / len(self._window)
            self._next += 1


def filled(returns: dict[int, float], final: float | None) -> dict[int, float]:
    """The returns of a run that has ended, also of points that it did not need: it would have
    stayed at its last return.

    >>> filled({1: 20.0}, 475.0)[10]
    475.0
    """
    if final is None:
        return dict(returns)
    first = max(returns, default=0) + 1
    return returns | dict.fromkeys(range(first, NUM_POINTS + 1), final)
