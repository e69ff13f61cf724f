"""What a team's rollouts say of each agent: returns by agent and by policy, and agent steps.

As the counts of episodes, they are computed once per rollout.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.executors.episode_statistics import Entries, EpisodeSums, Floats
from engine.spaces.team import Team, TeamReturns


@dataclass(frozen=True)
class TeamEntries:
    """The counts of some steps of a team.

    Attributes:
        present: How many agents were there in each env step, [T, B]; 0 where a step only reset.
        ended: The returns of each episode that ended, in the order of rows.
    """

    present: npt.NDArray[np.integer]
    ended: list[TeamReturns]

    @property
    def agent_steps(self) -> int:
        """Of all env steps together."""
        return int(self.present.sum())

    def share(self, number: int, count: int) -> TeamEntries:
        """As `Entries.share`."""
        return TeamEntries(self.present.flatten()[number::count], self.ended[number::count])


class TeamStatistics:
    """Returns of the agents in the running episodes.

    Args:
        team: The agents.
        num_envs: B.
    """

    def __init__(self, team: Team, num_envs: int) -> None:
        self._team = team
        self._returns = EpisodeSums((num_envs, len(team.agents)))

    def enter(
        self, reward: Floats, present: npt.NDArray[np.integer], entries: Entries
    ) -> TeamEntries:
        """Counts T steps.

        Args:
            reward: The environment's own, of each agent, [T, B, agents]: what the steps led to,
                rows 1 to T.
            present: Who chose an action, [T, B, agents]: rows 0 to T - 1.
            entries: The counts of the same steps as those of one environment.
        """
        valid = entries.valid[..., None]
        there = np.count_nonzero((present != 0) & valid, axis=-1)
        own = np.where(valid, reward, 0.0)
        if entries.ends is None:
            self._returns.add(own)
            return TeamEntries(there, [])
        returns = self._returns.split(own, entries.ends)
        return TeamEntries(there, [self._team.by_name(row) for row in returns.tolist()])


class TeamTally:
    """Adds up the agents' rewards of episodes that are played one step after the other.

    Args:
        team: The agents.
        num_envs: B.
    """

    def __init__(self, team: Team, num_envs: int) -> None:
        self._team = team
        self._returns = np.zeros((num_envs, len(team.agents)))

    def add(self, reward: np.ndarray, plays: np.ndarray) -> None:
        """Adds a step.

        Args:
            reward: Of each agent, [B, agents].
            plays: Of which environments it counts, bool [B].
        """
        self._returns += reward * plays[:, None]

    def of(self, index: int) -> TeamReturns:
        """The returns so far in one environment."""
        return self._team.by_name(self._returns[index].tolist())

    @property
    def mean(self) -> TeamReturns:
        """The mean returns over all episodes."""
        return self._team.by_name(self._returns.mean(0).tolist())
