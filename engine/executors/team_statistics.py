"""What a team's rollouts say of each agent: returns by agent and by policy, and agent steps.

As the counts of episodes, they are computed once per rollout.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from engine.executors.episode_statistics import Entries, EpisodeSums
from engine.spaces.team import Team, TeamReturns


class TeamEntries(NamedTuple):
    """The counts of some steps of a team.

    Attributes:
        agent_steps: Of these env steps, how many each agent was there for, added up.
        ended: The returns of each episode that ended, in the order of rows.
    """

    agent_steps: int
    ended: list[TeamReturns]


class TeamStatistics:
    """Returns of the agents in the running episodes.

    Args:
        team: The agents.
        num_envs: B.
        device: Where rollouts are.
    """

    def __init__(self, team: Team, num_envs: int, device: torch.device) -> None:
        self._team = team
        self._returns = EpisodeSums((num_envs, len(team.agents)), torch.float64, device)

    def enter(self, reward: Tensor, present: Tensor, entries: Entries) -> TeamEntries:
        """Counts T steps.

        Args:
            reward: The environment's own, of each agent, [T, B, agents]: what the steps led to,
                rows 1 to T.
            present: Who chose an action, [T, B, agents]: rows 0 to T - 1.
            entries: The counts of the same steps as those of one environment.
        """
        valid = entries.valid.unsqueeze(-1)
        agent_steps = int(((present != 0) & valid).sum())
        own = torch.where(valid, reward, 0.0)
        if entries.ends is None:
            self._returns.add(own)
            return TeamEntries(agent_steps, [])
        returns = self._returns.split(own, entries.ends)
        return TeamEntries(agent_steps, [self._team.by_name(row) for row in returns.tolist()])


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

    @property
    def mean(self) -> TeamReturns:
        """The mean returns over all episodes."""
        return self._team.by_name(self._returns.mean(0).tolist())
