"""The network of VDN and QMIX: action values of each policy's agents, and their mixer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import torch
from torch import Tensor, nn

from engine.algorithms.q_network import ActionValues, among_valid
from engine.algorithms.replicas import ReplicaGroup
from engine.algorithms.teams.agents import TeamView, of_agents, of_all
from engine.algorithms.teams.identity import identify
from engine.algorithms.teams.mixing import Mixer
from engine.algorithms.teams.policy_input import seen_by, spec_of
from engine.layers.inputs import STATE, Observation, map_leaves
from engine.spaces.action_parts import parts_of
from engine.spaces.observations import MASK, OBSERVATION, observation_leaves
from engine.spaces.team import SharedPolicy
from engine.spec import NetworkSpec

ByPolicy: TypeAlias = Mapping[str, Tensor]
"""Of each policy by its name, [..., agents, ...]."""


class TeamQNetwork(nn.Module):
    """A network for each policy, the mixer of their values, and the epsilon to explore with.

    Args:
        view: Of the team.
        spec: Encoders, trunk and core of each policy.
        dueling: See `ActionValues`.
        make_mixer: Called last.
    """

    def __init__(
        self, view: TeamView, spec: NetworkSpec, dueling: bool, make_mixer: Callable[[], Mixer]
    ) -> None:
        super().__init__()
        self._view = view
        self._policies = view.team.policies
        self.agents = nn.ModuleList(
            ActionValues(
                seen_by(policy),
                parts_of(policy.action).num_logits,
                spec_of(view.team, policy, spec),
                dueling,
            )
            for policy in self._policies
        )
        self.mixer = make_mixer()
        self.epsilon = nn.Parameter(torch.ones(()), requires_grad=False)

    def _pairs(self) -> list[tuple[SharedPolicy, ActionValues]]:
        networks = [network for network in self.agents if isinstance(network, ActionValues)]
        return list(zip(self._policies, networks, strict=True))

    def forward(self, samples: Mapping[str, Tensor], prefix: str = OBSERVATION) -> ByPolicy:
        """q_i(o_i, .) without a memory, [N, agents, choices].

        Args:
            samples: By field name, [N, ...].
            prefix: `observation`, or `next_observation` in samples from replay.
        """
        values = {}
        for policy, network in self._pairs():
            seen = self._seen(samples, policy, prefix)
            q = network(map_leaves(lambda leaf: leaf.flatten(0, 1), seen))
            values[policy.name] = q.view(-1, len(policy.agents), q.shape[-1])
        return values

    def step(self, inputs: Mapping[str, Tensor]) -> tuple[ByPolicy, Tensor]:
        """One step with memories; those of agents that are not there are forgotten.

        Args:
            inputs: By field name, [B, ...].

        Returns:
            q_i(o_i, .), [B, agents, choices], and the state of all agents after it, [B, S].
        """
        values, states = {}, []
        present = self._view.present(inputs)
        memories = self._memories(inputs[STATE])
        for policy, network in self._pairs():
            seen = map_leaves(lambda leaf: leaf.flatten(0, 1), self._seen(inputs, policy))
            q, state = network.step(seen, memories[policy.name])
            count = len(policy.agents)
            values[policy.name] = q.view(-1, count, q.shape[-1])
            is_there = of_agents(present, policy).unsqueeze(-1)
            states.append((state.view(-1, count, state.shape[-1]) * is_there).flatten(1))
        return values, torch.cat(states, -1)

    def unroll(self, samples: Mapping[str, Tensor], burn_in_steps: int) -> ByPolicy:
        """q_i(o_i, .) of s_0 to s_T, with gradients through time, [T + 1, N, agents, choices].

        Args:
            samples: Sequences, [N, rows, ...].
            burn_in_steps: See `ActionValues.unroll_refreshed`.
        """
        values = {}
        present = self._view.present(samples)[:, :-1]
        memories = self._memories(samples[STATE])
        for policy, network in self._pairs():
            count = len(policy.agents)
            # Steps that only reset, or in which an agent is not there, leave it no memory. After
            # s_T nothing follows.
            goes_on = of_agents(present, policy) & samples["valid"].unsqueeze(-1)
            continues = goes_on.transpose(0, 1).flatten(1).to(torch.float32)
            seen = map_leaves(
                lambda leaf: leaf.transpose(0, 1).flatten(1, 2), self._seen(samples, policy)
            )
            q = network.unroll_refreshed(
                seen,
                memories[policy.name],
                nn.functional.pad(continues, (0, 0, 0, 1)),
                samples["has_burn_in"].unsqueeze(-1).expand(-1, count).flatten(),
                burn_in_steps,
            )
            values[policy.name] = q.view(len(q), -1, count, q.shape[-1])
        return values

    def total(self, values: ByPolicy, weights: Tensor, present: Tensor) -> Tensor:
        """Q_tot, [...]: the values of agents, [..., agents], mixed; those not there add 0.

        Args:
            values: By policy.
            weights: Of the mixer, [..., W].
            present: Who is there, bool [..., all agents].
        """
        mixed: Tensor = self.mixer.mix(of_all(values, self._view.team) * present, weights)
        return mixed

    def learn(self, samples: Mapping[str, Tensor], replicas: ReplicaGroup) -> None:
        """Merges what those who are there observe, [N, ...], into the statistics of inputs."""
        present = self._view.present(samples)
        for policy, network in self._pairs():
            if network.input.normalizes:
                is_there = of_agents(present, policy)
                seen = self._seen(samples, policy)
                network.input.learn(map_leaves(lambda leaf: leaf[is_there], seen), replicas)  # noqa: B023
        self.mixer.learn(self._view.state(samples), replicas)

    def _seen(
        self, samples: Mapping[str, Tensor], policy: SharedPolicy, prefix: str = OBSERVATION
    ) -> Observation:
        """What the network of a policy takes, each leaf [..., agents, *shape]."""
        observed = self._view.observations(samples, policy, prefix)
        if len(policy.agents) == 1:
            return observed
        first = next(iter(observation_leaves(policy.observation).values()))
        leaf = observed if isinstance(observed, Tensor) else next(iter(observed.values()))
        num_axes = leaf.ndim - 1 - len(first.space.shape or ())  # before that of the agents
        return identify(observed, policy, leaf.shape[:num_axes])

    def _memories(self, state: Tensor) -> dict[str, Tensor]:
        """The states of each policy's agents, [N x agents, S], from those of all, [N, all S]."""
        counts = [len(policy.agents) for policy in self._policies]
        by_agent = state.view(-1, sum(counts), state.shape[-1] // sum(counts))
        parts = torch.split(by_agent, counts, 1)
        return {
            policy.name: part.flatten(0, 1)
            for policy, part in zip(self._policies, parts, strict=True)
        }


class TeamChoices:
    """The choices of a team whose agents choose one thing each.

    Args:
        view: Of the team.
    """

    def __init__(self, view: TeamView) -> None:
        self._view = view
        self._policies = view.team.policies

    def best(self, values: ByPolicy, samples: Mapping[str, Tensor], name: str = MASK) -> ByPolicy:
        """The best valid choice of each agent, int64 [..., agents].

        Args:
            values: Of all choices, [..., agents, choices].
            samples: With masks, if there are any.
            name: Of the masks.
        """
        return {
            policy.name: among_valid(
                values[policy.name], self._view.masks(samples, policy, name)
            ).argmax(-1)
            for policy in self._policies
        }

    def joint(self, choices: ByPolicy) -> Tensor:
        """The field `action` of choices [..., agents]."""
        return self._view.joint_action(
            {
                policy.name: choices[policy.name].unsqueeze(-1)
                if self._has_axis(policy)
                else choices[policy.name]
                for policy in self._policies
            }
        )

    def taken(self, values: ByPolicy, action: Tensor) -> ByPolicy:
        """The values of what all chose, [..., agents], by the field `action`."""
        choices = {}
        for policy in self._policies:
            own = self._view.actions(action, policy)
            choices[policy.name] = own.squeeze(-1) if self._has_axis(policy) else own
        return values_of(values, choices)

    @staticmethod
    def _has_axis(policy: SharedPolicy) -> bool:
        return not parts_of(policy.action).is_scalar


def values_of(values: ByPolicy, choices: ByPolicy) -> ByPolicy:
    """The values of choices, [..., agents], from those of all choices, [..., agents, choices]."""
    return {
        name: q.gather(-1, choices[name].unsqueeze(-1)).squeeze(-1) for name, q in values.items()
    }
