"""Several agents in one environment: who they are, who shares a policy, and how a rollout has them.

To everything between an environment and an algorithm a team is one environment: its observation is
a Dict, its action a Dict with one entry for each agent, its reward the sum of the agents' rewards.

    observation.agents.NAME       s_t of one agent, or `observation.agents.NAME.LEAF`
    observation.team.reward       r_t of each agent, which led to s_t; float32 [agents]
    observation.team.present      who chooses an action in s_t; int8 [agents]
    observation.team.terminated   whose own episode ended for good in s_t; int8 [agents]
    observation.state             the environment's central state, if `env.central_state`
    action_mask                   the choices of all agents, one agent after the other

Whoever is not there is observed as zeros; what is chosen for it is ignored.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from gymnasium import spaces

from engine.errors import ConfigError
from engine.spaces.leaves import AnySpace

AGENTS, TEAM, CENTRAL_STATE = "agents", "team", "state"
"""Keys of a team's observation; `CENTRAL_STATE` only where it is asked for."""
REWARD, PRESENT, TERMINATED = "reward", "present", "terminated"
"""Keys of what is observed of the team as such."""

REWARD_FIELD, PRESENT_FIELD = (f"observation.{TEAM}.{name}" for name in (REWARD, PRESENT))
"""The fields of a rollout with the agents' rewards and their presence, [T + 1, B, agents]."""


def agent_name(agent: object) -> str:
    """An environment's name for an agent as part of the name of a field."""
    return str(agent).replace(".", "_").replace("%", "_")


@dataclass(frozen=True)
class SharedPolicy:
    """A policy and the agents that act with it, whose spaces are equal.

    Attributes:
        name: As the experiment has it; an agent's own name if it has a policy for itself.
        agents: Their numbers in the team, ascending.
        observation: Space of what one of them observes, without an action mask.
        action: Space of its actions.
    """

    name: str
    agents: tuple[int, ...]
    observation: AnySpace
    action: AnySpace


class TeamReturns(NamedTuple):
    """Returns of one episode, or their means over several, by name.

    Attributes:
        agents: Of each agent.
        policies: Of each policy: the sum over the agents that share it.
    """

    agents: dict[str, float]
    policies: dict[str, float]


@dataclass(frozen=True)
class Team:
    """The agents of one environment.

    Attributes:
        agents: All that can ever be there, in the environment's order.
        policies: Every agent has one of them; in the order of their first agents.
        state: Space of the central state; None if it is not observed.
        own: Names of the policies that act and learn in this process; None: all of them. The
            others have actors and learners of their own.
    """

    agents: tuple[str, ...]
    policies: tuple[SharedPolicy, ...]
    state: spaces.Box | None = None
    own: frozenset[str] | None = None

    @property
    def own_policies(self) -> tuple[SharedPolicy, ...]:
        """The policies that act and learn in this process, in order."""
        return tuple(item for item in self.policies if self.own is None or item.name in self.own)

    @property
    def identity(self) -> tuple[tuple[str, tuple[int, ...], bool], ...]:
        """Who shares which policy, and which of these are at home; for checksums."""
        own = self.own_policies
        return tuple((policy.name, policy.agents, policy in own) for policy in self.policies)

    def policy_of(self, agent: int) -> SharedPolicy:
        """The policy of an agent."""
        return next(policy for policy in self.policies if agent in policy.agents)

    def by_name(self, returns: Sequence[float]) -> TeamReturns:
        """Names the returns of all agents, and adds them up by policy."""
        return TeamReturns(
            dict(zip(self.agents, returns, strict=True)),
            {
                policy.name: math.fsum(returns[agent] for agent in policy.agents)
                for policy in self.policies
            },
        )


def joint_observation(
    observations: Mapping[str, AnySpace], state: spaces.Box | None = None
) -> spaces.Dict:
    """The observation space of a team, as above.

    Args:
        observations: Of each agent by name, in order, without action masks.
        state: Of the central state, if it is observed.
    """
    size = len(observations)
    of_team = (
        (REWARD, spaces.Box(-np.inf, np.inf, (size,), np.float32)),
        (PRESENT, spaces.MultiBinary(size)),
        (TERMINATED, spaces.MultiBinary(size)),
    )
    parts: list[tuple[str, AnySpace]] = [
        (AGENTS, spaces.Dict(OrderedDict(observations))),
        (TEAM, spaces.Dict(OrderedDict(of_team))),
    ]
    if state is not None:
        parts.append((CENTRAL_STATE, state))
    return spaces.Dict(OrderedDict(parts))


def joint_action(actions: Mapping[str, AnySpace]) -> spaces.Dict:
    """The action space of a team: an entry for each agent, in order."""
    return spaces.Dict(OrderedDict(actions))


def shared_policies(
    members: Mapping[str, Sequence[str]],
    observations: Mapping[str, AnySpace],
    actions: Mapping[str, AnySpace],
) -> tuple[SharedPolicy, ...]:
    """Policies in the order of their first agents.

    Args:
        members: Names of the agents of each policy; every agent has one, with equal spaces.
        observations, actions: Of each agent by name, in order.
    """
    number_of = {name: number for number, name in enumerate(observations)}
    policies = [
        SharedPolicy(
            policy,
            tuple(sorted(number_of[name] for name in names)),
            observations[names[0]],
            actions[names[0]],
        )
        for policy, names in members.items()
    ]
    return tuple(sorted(policies, key=lambda policy: policy.agents))


def check_return_of(name: str | None, team: Team | None) -> None:
    """Checks that `stop.return_of` names somebody.

    Raises:
        ConfigError: There is one agent; or no agent and no policy of that name, or one of each
            with different members.
    """
    if name is None:
        return
    where = "stop.return_of"
    if team is None:
        raise ConfigError("the environment has one agent", where=where, fix="leave it out")
    members = {policy.name: policy.agents for policy in team.policies}
    if name not in (*team.agents, *members):
        raise ConfigError(
            f"there is no agent and no policy {name!r}",
            where=where,
            fix=f"use one of {', '.join(dict.fromkeys((*team.agents, *members)))}",
        )
    if name in team.agents and members.get(name, ()) not in ((), (team.agents.index(name),)):
        raise ConfigError(
            f"{name!r} is an agent, and the policy of others",
            where=where,
            fix="give the policy another name (agents)",
        )
