"""What tables say of a team: mean returns of agents and policies, agent steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np
import pandas as pd

from engine.trace.columns import column_of, mappings_of, optional_of
from engine.trace.optional_columns import OptionalMappings, OptionalNumbers
from engine.trace.records import Episode, Production
from tianji_cli.analysis.convergence import episode_curve

MAX_CURVES = 64
"""Of agents and policies of one run; a report draws a dozen."""


@dataclass(frozen=True)
class TeamMeans:
    """Mean returns over the last episodes; empty of a run with one agent.

    Attributes:
        team: Of the team.
        agents, policies: By name.
    """

    team: float | None = None
    agents: dict[str, float] = field(default_factory=dict)
    policies: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, episodes: Sequence[Episode], window: int) -> TeamMeans:
        """Over the last `window` episodes."""
        agents = _column(episodes, "agent_returns")
        if not agents.names:
            return cls()
        num, team = len(episodes), column_of(episodes, "episode_return")
        policies = _column(episodes, "policy_returns")
        return cls(
            float(np.mean(team[-window:])),
            {name: float(agents.series(name, num)[-window:].mean()) for name in agents.names},
            {name: float(policies.series(name, num)[-window:].mean()) for name in policies.names},
        )


def names_in(episodes: Sequence[Episode]) -> list[str]:
    """The agents that episodes tell of, and then the policies that are not called as one."""
    agents, policies = _column(episodes, "agent_returns"), _column(episodes, "policy_returns")
    return list(dict.fromkeys((*agents.names, *policies.names)))


def agent_steps_in(production: Sequence[Production]) -> np.ndarray | None:
    """Agent steps of each rollout, [rows], NaN where they are unknown; None if there is one
    agent."""
    fields = msgspec.structs.fields(Production)
    column = optional_of(production, next(one for one in fields if one.name == "agent_steps"))
    assert isinstance(column, OptionalNumbers)
    return column.series(len(production))


def agent_steps_of(production: Sequence[Production]) -> int | None:
    """Agent steps of all rollouts; None if there is one agent."""
    steps = agent_steps_in(production)
    return None if steps is None else int(np.nansum(steps))


def curves_by_name(parts: Sequence[Sequence[Episode]], window: int) -> dict[str, pd.DataFrame]:
    """The learning curve of each agent and each policy, as `episode_curve` has them.

    Args:
        parts: The episodes of a run, after those of the runs that it resumes.
        window: Episodes in the moving mean.

    Returns:
        By name, policies first. A policy that is one agent alone is left out, and one of all agents
        too: its curve is the agent's, or the team's.
    """
    agents = _names(parts, "agent_returns")
    policies = _names(parts, "policy_returns")
    kept = [name for name in policies if name not in agents] if len(policies) > 1 else []
    names = [*kept, *(agents if len(agents) > 1 else [])][:MAX_CURVES]
    return {
        name: pd.concat(
            [episode_curve(part, window, name) for part in parts if len(part)], ignore_index=True
        )
        for name in names
    }


def _names(parts: Sequence[Sequence[Episode]], field: str) -> list[str]:
    return list(dict.fromkeys(name for part in parts for name in _column(part, field).names))


def _column(episodes: Sequence[Episode], name: str) -> OptionalMappings:
    return mappings_of(episodes, Episode, name)
