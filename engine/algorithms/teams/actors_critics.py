"""Networks of several policies, each with critics that see what all agents see and do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import msgspec
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from engine.algorithms.observation_input import build_input
from engine.algorithms.q_network import Critics
from engine.algorithms.teams.agents import TeamView
from engine.algorithms.teams.identity import identify, numbered
from engine.algorithms.teams.policy_input import seen_by, spec_of
from engine.layers.encoders import build_features
from engine.layers.inputs import Observation, map_leaves
from engine.layers.trunks import linear
from engine.spaces.leaves import AnySpace
from engine.spaces.team import SharedPolicy
from engine.spec import NetworkSpec

Scaled: TypeAlias = Tensor | list[Tensor]
"""Results of an input layer."""


class ActorsCritics(nn.Module):
    """For each policy an actor, and C critics of the central state and the joint action.

    Agents that share a policy share its actor and its critics; both are told who is meant.

    Args:
        view: Of the team.
        sizes: E of each policy: outputs of its actor, and numbers of an agent's action for critics.
        spec: Encoders and trunk. Critics, and what normalises the central state, are as for a
            vector.
        num_critics: C.
    """

    def __init__(
        self, view: TeamView, sizes: Sequence[int], spec: NetworkSpec, num_critics: int
    ) -> None:
        super().__init__()
        policies = view.team.policies
        self.acts_uniformly = nn.Parameter(torch.ones(()), requires_grad=False)
        of_actors = [(seen_by(policy), spec_of(view.team, policy, spec)) for policy in policies]
        self.inputs = nn.ModuleList(build_input(space, own) for space, own in of_actors)
        state = spaces.Box(-np.inf, np.inf, (view.state_size,), np.float32)
        for_vector = msgspec.structs.replace(spec, name="mlp", encoders={})
        self.state_input = build_input(state, for_vector)
        self.actors = nn.ModuleList(
            Actor(space, own, size) for (space, own), size in zip(of_actors, sizes, strict=True)
        )
        num_actions = sum(
            size * len(policy.agents) for policy, size in zip(policies, sizes, strict=True)
        )
        self.critics = nn.ModuleList(
            Critics(state, num_actions + _num_numbers(policy), for_vector, num_critics)
            for policy in policies
        )

    def scaled(self, number: int, policy: SharedPolicy, observation: Observation) -> Scaled:
        """What the input layer of a policy makes of [N, agents, ...] observations, [N x agents].

        Args:
            number: Of the policy in the team.
            policy: The same.
            observation: Each leaf [N, agents, *shape].
        """
        layer = self.inputs[number]
        scaled: Scaled = layer(merged(policy, observation))
        return scaled


class Actor(nn.Module):
    """From the input layer's result to outputs of a policy.

    Args:
        observation: Space of what an agent observes, with its number if there are several.
        spec: Encoders and trunk.
        num_outputs: Of the policy.
    """

    def __init__(self, observation: AnySpace, spec: NetworkSpec, num_outputs: int) -> None:
        super().__init__()
        self.trunk, num_features = build_features(observation, spec)
        self.head = linear(num_features, num_outputs, spec.gain_of("policy"))

    def forward(self, scaled: Scaled) -> Tensor:
        """[N, ...] -> [N, num_outputs]."""
        outputs: Tensor = self.head(self.trunk(scaled))
        return outputs


class ActorsCriticsTarget(nn.Module):
    """Actors and critics that follow those of a network slowly.

    Args:
        network: One of its own, whose parts it takes.
    """

    def __init__(self, network: ActorsCritics) -> None:
        super().__init__()
        self.actors, self.critics = network.actors, network.critics


def outputs_of(actors: nn.ModuleList, number: int, policy: SharedPolicy, scaled: Scaled) -> Tensor:
    """Outputs of a policy for each of its agents, [N, agents, E]; see `ActorsCritics.scaled`."""
    outputs: Tensor = actors[number](scaled)
    return outputs.view(-1, len(policy.agents), outputs.shape[-1])


def critics_of(critics: nn.ModuleList, number: int) -> Critics:
    """Those of one policy."""
    found = critics[number]
    assert isinstance(found, Critics)
    return found


def values_of(
    critics: Callable[[Tensor, Tensor], Tensor],
    policy: SharedPolicy,
    state: Tensor,
    actions: Tensor,
) -> Tensor:
    """q_i(s, a) of each agent i of a policy, by each of its critics, [C, N, agents].

    Args:
        critics: Of the policy: all of them, or the `first`.
        policy: Whose agents.
        state: The central state, scaled, [N, D].
        actions: The joint action that each of them is judged by, [N, agents, A].
    """
    num_agents = len(policy.agents)
    states = state.unsqueeze(1).expand(-1, num_agents, -1)
    inputs = actions if num_agents == 1 else numbered(actions, num_agents)
    values = critics(states.flatten(0, 1), inputs.flatten(0, 1))
    return values.view(-1, len(state), num_agents)


def merged(policy: SharedPolicy, observation: Observation) -> Observation:
    """Observations [N, agents, ...] as [N x agents, ...], with the agents' numbers if there are
    several."""
    if len(policy.agents) > 1:
        leaf = observation if isinstance(observation, Tensor) else next(iter(observation.values()))
        observation = identify(observation, policy, (leaf.shape[0],))
    return map_leaves(lambda values: values.flatten(0, 1), observation)


def _num_numbers(policy: SharedPolicy) -> int:
    """Entries that tell critics which agent of a policy is meant; none if there is one."""
    return len(policy.agents) if len(policy.agents) > 1 else 0
