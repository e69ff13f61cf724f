"""A team's batches and actions, agent by agent: what every algorithm for teams needs.

Leading axes are those of the tensors that are given: [B] when acting, [T, B] or [T + 1, B] in a
batch of rollouts, [N] in a minibatch. The agents of a policy are the axis after them.

Agents are told apart by slices only: a compiled function can read no tensor of indices.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from gymnasium import spaces
from torch import Tensor

from engine.algorithms.base import Batch, Spaces
from engine.algorithms.teams.critic_input import numbers
from engine.errors import ConfigError
from engine.layers.inputs import Observation
from engine.rollout import Field
from engine.spaces.action_parts import action_field, parts_of
from engine.spaces.leaves import AnySpace, leaf_names, leaves_of
from engine.spaces.observations import (
    MASK,
    OBSERVATION,
    mask_field,
    observation_fields,
    observation_leaves,
)
from engine.spaces.team import (
    AGENTS,
    CENTRAL_STATE,
    PRESENT,
    REWARD,
    TEAM,
    TERMINATED,
    SharedPolicy,
    Team,
)


@dataclass(frozen=True)
class AgentSteps:
    """What each agent of a policy went through in T steps; all [T, B, agents].

    Attributes:
        valid: Whether it acted, bool: it was there, and the step did not only reset.
        reward: r_{t+1} of its own, float32; 0 where it did not act.
        terminated: Whether its own episode ended for good, bool.
        truncated: Whether it ended for another reason, bool: the value of what it observes then,
            row t + 1, stands for what would have come.
    """

    valid: Tensor
    reward: Tensor
    terminated: Tensor
    truncated: Tensor


class TeamView:
    """Takes a team's tensors apart by policy, and puts actions together.

    Args:
        name: Of the algorithm, for errors.
        joint: Spaces of the environment.

    Attributes:
        team: The agents. A network has the parameters of all its policies.
        policies: Those that act and learn here; the others may do so in other processes.

    Raises:
        ConfigError: The environment has one agent.
    """

    def __init__(self, name: str, joint: Spaces) -> None:
        if joint.team is None:
            raise ConfigError(
                f"{name} is for several agents; the environment has one",
                where="algorithm.name",
                fix="use an algorithm for one agent, such as ppo, or an environment of PettingZoo",
            )
        self.team: Team = joint.team
        self.policies = self.team.own_policies
        self._joint = joint
        self._parts = [parts_of(self._action_of(agent)) for agent in range(len(self.team.agents))]
        self._choices = _slices([len(parts.nvec) for parts in self._parts])
        self._reals = _slices([parts.num_reals for parts in self._parts], self._choices[-1].stop)
        self._logits = _slices([parts.num_logits for parts in self._parts])

    def _action_of(self, agent: int) -> AnySpace:
        return self.team.policy_of(agent).action

    @property
    def fields(self) -> tuple[Field, ...]:
        """The fields of a rollout that every algorithm for teams needs: observations, masks and
        the joint action."""
        joint = self._joint
        num_logits = sum(parts.num_logits for parts in self._parts)
        mask = [mask_field(num_logits)] if joint.has_action_mask else []
        return (*observation_fields(joint.observation), *mask, self.action_field)

    @cached_property
    def action_field(self) -> Field:
        """Of the joint action: the choices of all agents in turn, then the reals of all agents."""
        return action_field(self._joint.action)

    def observations(
        self, values: Mapping[str, Tensor], policy: SharedPolicy, prefix: str = OBSERVATION
    ) -> Observation:
        """What the agents of a policy observe, each leaf [..., agents, *shape].

        Args:
            values: By field name.
            policy: Whose agents.
            prefix: `observation`, or `next_observation` in samples from replay.
        """
        stacked = {}
        for name, leaf in observation_leaves(policy.observation).items():
            (path,) = leaf_names((leaf,), "")
            names = [
                f"{prefix}.{AGENTS}.{self.team.agents[agent]}{path}" for agent in policy.agents
            ]
            lead = values[names[0]].ndim - len(leaf.space.shape or ())
            own = torch.stack([values[name] for name in names], lead)
            stacked[name.removeprefix(OBSERVATION).removeprefix(".")] = own
        return stacked[""] if list(stacked) == [""] else stacked

    def masks(
        self, values: Mapping[str, Tensor], policy: SharedPolicy, name: str = MASK
    ) -> Tensor | None:
        """The valid choices of a policy's agents, bool [..., agents, choices]; None without masks.

        Args:
            values: By field name.
            policy: Whose agents.
            name: `action_mask`, or `next_action_mask` in samples from replay.
        """
        mask = values.get(name)
        if mask is None:
            return None
        return torch.stack([mask[..., self._logits[agent]] for agent in policy.agents], -2)

    def state(self, values: Mapping[str, Tensor], prefix: str = OBSERVATION) -> Tensor:
        """What a central critic sees, float32 [..., D]: the environment's central state if it is
        observed, otherwise all that all agents observe, one after the other; as `numbers`."""
        if self.team.state is not None:
            return numbers(values[f"{prefix}.{CENTRAL_STATE}"], self.team.state)
        seen = self._joint.observation
        assert isinstance(seen, spaces.Dict)
        leaves = leaves_of(seen[AGENTS], f"{prefix}.{AGENTS}")
        names = leaf_names(leaves, f"{prefix}.{AGENTS}")
        pairs = zip(names, leaves, strict=True)
        return torch.cat([numbers(values[name], leaf.space) for name, leaf in pairs], -1)

    @cached_property
    def state_size(self) -> int:
        """D of `state`."""
        zeros = {
            field.name: torch.zeros(1, *field.shape)
            for field in observation_fields(self._joint.observation)
        }
        return self.state(zeros).shape[-1]

    def rewards(self, values: Mapping[str, Tensor], prefix: str = OBSERVATION) -> Tensor:
        """Each agent's own reward for the step that led to a state, float32 [..., all agents]."""
        return values[f"{prefix}.{TEAM}.{REWARD}"]

    def present(self, values: Mapping[str, Tensor], prefix: str = OBSERVATION) -> Tensor:
        """Who chooses an action in a state, bool [..., all agents]."""
        return values[f"{prefix}.{TEAM}.{PRESENT}"] != 0

    def terminated(self, values: Mapping[str, Tensor], prefix: str = OBSERVATION) -> Tensor:
        """Whose own episode has ended for good in a state, bool [..., all agents]."""
        return values[f"{prefix}.{TEAM}.{TERMINATED}"] != 0

    def steps(self, batch: Batch, policy: SharedPolicy) -> AgentSteps:
        """What the agents of a policy went through, from a batch of rollouts [T, B, ...].

        An agent that leaves while others stay has ended its own episode: for good if the
        environment says so, otherwise by truncation. The end of the team's ends everybody's.
        """
        present = of_agents(self.present(batch), policy)
        valid = present[:-1] & batch["valid"].unsqueeze(-1)
        reward = torch.where(valid, of_agents(self.rewards(batch)[1:], policy), 0.0)
        has_terminated = of_agents(self.terminated(batch)[1:], policy)
        terminated = has_terminated | batch["terminated"].unsqueeze(-1)
        has_left = ~present[1:] | batch["truncated"].unsqueeze(-1)
        return AgentSteps(valid, reward, valid & terminated, valid & has_left & ~terminated)

    def actions(self, action: Tensor, policy: SharedPolicy) -> Tensor:
        """The actions of a policy's agents, [..., agents, *as `action_field` of one agent]."""
        rows = [
            torch.cat((action[..., self._choices[agent]], action[..., self._reals[agent]]), -1)
            for agent in policy.agents
        ]
        own = torch.stack(rows, -2)
        field = action_field(policy.action)
        own = own if field.dtype == "float32" else own.to(torch.int64)
        return own if field.shape else own.squeeze(-1)

    def joint_action(self, chosen: Mapping[str, Tensor]) -> Tensor:
        """The inverse: the field `action`, [..., columns], from the actions of the policies that
        act here; zeros for the agents of others."""
        dtype = torch.float32 if self.action_field.dtype == "float32" else torch.int64
        rows: dict[int, Tensor] = {}
        for policy in self.policies:
            own = chosen[policy.name].to(dtype)
            own = own if action_field(policy.action).shape else own.unsqueeze(-1)
            rows |= zip(policy.agents, own.unbind(-2), strict=True)
        lead = next(iter(rows.values())).shape[:-1]
        choices, reals = [], []
        for agent, parts in enumerate(self._parts):
            size = len(parts.nvec) + parts.num_reals
            row = rows[agent] if agent in rows else own.new_zeros((*lead, size))
            choices.append(row[..., : len(parts.nvec)])
            reals.append(row[..., len(parts.nvec) :])
        return torch.cat((*choices, *reals), -1)

    def columns_of(self, policy: SharedPolicy) -> list[int]:
        """The columns of the field `action` that the agents of a policy choose."""
        return [
            column
            for agent in policy.agents
            for span in (self._choices[agent], self._reals[agent])
            for column in range(span.start, span.stop)
        ]


def of_agents(values: Tensor, policy: SharedPolicy) -> Tensor:
    """The entries of a policy's agents, [..., agents], from those of all agents."""
    return torch.stack([values[..., agent] for agent in policy.agents], -1)


def of_all(values: Mapping[str, Tensor], team: Team) -> Tensor:
    """The inverse: the entries of all agents, from those of each policy's agents by its name; zeros
    for the agents of policies that are not there."""
    entries: dict[int, Tensor] = {}
    for policy in team.policies:
        if policy.name in values:
            entries |= zip(policy.agents, values[policy.name].unbind(-1), strict=True)
    absent = torch.zeros_like(next(iter(entries.values())))
    return torch.stack([entries.get(agent, absent) for agent in range(len(team.agents))], -1)


def _slices(sizes: Sequence[int], first: int = 0) -> list[slice]:
    """Places of parts that follow each other."""
    stops = list(itertools.accumulate(sizes, initial=first))
    return list(itertools.starmap(slice, itertools.pairwise(stops)))
