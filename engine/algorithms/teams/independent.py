"""Agents as environments of their own: how an algorithm for one agent sees those of a policy.

The axis of agents is merged into that of environments: a policy with 3 agents in 8 environments
acts in 24, and has a batch of 24 columns. So every algorithm for one agent is one for several.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from engine.algorithms.base import Batch, Spaces
from engine.algorithms.teams.agents import TeamView, of_agents, of_all
from engine.algorithms.teams.identity import identify
from engine.algorithms.teams.policy_input import seen_by, spec_of
from engine.layers.inputs import STATE
from engine.spaces.action_parts import parts_of
from engine.spaces.observations import MASK, OBSERVATION
from engine.spaces.team import SharedPolicy
from engine.spec import NetworkSpec


class IndependentView(TeamView):
    """Takes a team's tensors apart into those of environments with one agent.

    Args:
        name: Of the algorithm, for errors.
        joint: Spaces of the environment.
        state_size: S, entries of one agent's memory; 0 without one.
    """

    def __init__(self, name: str, joint: Spaces, state_size: int) -> None:
        super().__init__(name, joint)
        self._has_mask = joint.has_action_mask
        self._state_size = state_size

    def spaces_of(self, policy: SharedPolicy) -> Spaces:
        """Of an environment with one of a policy's agents, which is told its number."""
        return Spaces(seen_by(policy), policy.action, self._has_mask)

    def spec_of(self, policy: SharedPolicy, spec: NetworkSpec) -> NetworkSpec:
        """The settings of a policy's network: without encoders of what only others observe."""
        return spec_of(self.team, policy, spec)

    def inputs(self, values: Mapping[str, Tensor], policy: SharedPolicy) -> dict[str, Tensor]:
        """What `act` gets, [B x agents, ...], from what it gets for the team, [B, ...]."""
        own = self._states(values, policy, lead=1)
        if self._state_size:
            own[STATE] = self._memory(values[STATE], policy)
        return {name: tensor.flatten(0, 1) for name, tensor in own.items()}

    def noise(self, noise: Tensor) -> list[Tensor]:
        """The noise of each policy, [B x agents, outputs], from that of all, [B, ...]."""
        sizes = [len(policy.agents) for policy in self.policies]
        outputs = [parts_of(policy.action).num_outputs for policy in self.policies]
        widths = [size * count for size, count in zip(sizes, outputs, strict=True)]
        parts = zip(torch.split(noise, widths, -1), outputs, strict=True)
        return [part.reshape(-1, count) for part, count in parts]

    def together(
        self, values: Mapping[str, Tensor], chosen: Mapping[str, Mapping[str, Tensor]]
    ) -> dict[str, Tensor]:
        """What `act` returns for the team, from what it returned for each policy, by its name.

        Whoever is absent remembers nothing.

        Args:
            values: What `act` got.
            chosen: Of each policy `action`, `state` if there is a memory, and numbers.
        """
        by_field: dict[str, dict[str, Tensor]] = {}
        for policy in self.policies:
            for name, rows in chosen[policy.name].items():
                size = len(policy.agents)
                shaped = rows.view(rows.shape[0] // size, size, *rows.shape[1:])
                by_field.setdefault(name, {})[policy.name] = shaped
        together = {"action": self.joint_action(by_field.pop("action"))}
        if (states := by_field.pop(STATE, None)) is not None:
            across = {name: state.transpose(1, 2) for name, state in states.items()}
            kept = of_all(across, self.team).where(self.present(values).unsqueeze(1), 0.0)
            together[STATE] = kept.transpose(1, 2).flatten(1)
        return together | {name: of_all(parts, self.team) for name, parts in by_field.items()}

    def batch(self, batch: Batch, policy: SharedPolicy, *, share_reward: bool) -> Batch:
        """A batch of a policy's agents, [T, B x agents, ...], from one of the team, [T, B, ...].

        Args:
            batch: Rollouts; its fields are those of `fields`, and perhaps `log_prob` and `state`.
            policy: Whose agents.
            share_reward: Whether each agent's reward is the sum of all agents' rewards.
        """
        steps = self.steps(batch, policy)
        reward = steps.reward
        if share_reward:
            of_team = self.rewards(batch)[1:].sum(-1, keepdim=True)
            reward = torch.where(steps.valid, of_team, 0.0)
        own = {
            **self._states(batch, policy, lead=2),
            "action": self.actions(batch["action"], policy),
            "log_prob": of_agents(batch["log_prob"], policy),
            "reward": reward,
            "terminated": steps.terminated,
            "truncated": steps.truncated,
            "valid": steps.valid,
        }
        if self._state_size:
            own[STATE] = self._memory(batch[STATE], policy)
        return {name: tensor.flatten(1, 2) for name, tensor in own.items()}

    def _states(
        self, values: Mapping[str, Tensor], policy: SharedPolicy, lead: int
    ) -> dict[str, Tensor]:
        """Observations and masks of a policy's agents by field name, each [*lead, agents, ...]."""
        seen = self.observations(values, policy)
        if len(policy.agents) > 1:
            first = seen if isinstance(seen, Tensor) else next(iter(seen.values()))
            seen = identify(seen, policy, tuple(first.shape[:lead]))
        own = (
            {OBSERVATION: seen}
            if isinstance(seen, Tensor)
            else {f"{OBSERVATION}.{name}": leaf for name, leaf in seen.items()}
        )
        mask = self.masks(values, policy)
        return own if mask is None else own | {MASK: mask}

    def _memory(self, state: Tensor, policy: SharedPolicy) -> Tensor:
        """The memories of a policy's agents, [..., agents, S], from those of all, [..., agents x
        S]."""
        apart = state.view(*state.shape[:-1], len(self.team.agents), self._state_size)
        return of_agents(apart.transpose(-1, -2), policy).transpose(-1, -2)
