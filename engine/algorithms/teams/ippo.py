"""Independent PPO (de Witt et al., 2020): PPO for each policy, its agents as environments.

To a policy all other agents are part of the environment; its own agents are told apart by their
numbers. Whoever is absent has weight 0. Nothing couples the policies: each has parameters, a
gradient norm and statistics of its own, so an update of all is an update of each.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from gymnasium.spaces import Box
from torch import Tensor, nn

from engine.algorithms.actor_critic import log_ratios, rows_of_epochs, take_epochs
from engine.algorithms.base import (
    Batch,
    EnvSlice,
    LearnerState,
    SampleRequest,
    Spaces,
    UpdateResult,
    initial_state,
)
from engine.algorithms.gradient import GradientStep, Samples
from engine.algorithms.off_policy.corrections import RATE_FACTOR, VERSION
from engine.algorithms.off_policy.ratios import LogRatios, is_due
from engine.algorithms.ppo import Ppo
from engine.algorithms.ppo_config import (
    ADAM_EPSILON,
    CORRECTIONS,
    DIVERGENCE,
    METRICS,
    SCHEDULES,
    UNREAD_BY_STEP,
    PpoConfig,
    changing,
)
from engine.algorithms.replicas import SINGLE_REPLICA, ReplicaGroup
from engine.algorithms.schedules import set_keys
from engine.algorithms.teams.independent import IndependentView
from engine.layers.cores import state_size
from engine.layers.inputs import STATE, Inputs
from engine.rollout import Field
from engine.spaces.team import SharedPolicy
from engine.spec import NetworkSpec


class IppoConfig(PpoConfig, frozen=True, kw_only=True):
    """Independent PPO for several agents (de Witt et al., 2020)."""

    share_reward: bool = False
    """Every agent learns from the sum of all agents' rewards instead of its own."""


class TeamNetwork(nn.Module):
    """A network for each policy, by its name.

    Args:
        policies: In the order of `Team.policies`.
    """

    def __init__(self, policies: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.policies = nn.ModuleDict(policies)


class Ippo:
    """IPPO for any spaces, with or without masks and a memory.

    Args:
        config: Hyperparameters; steps are those of the team.
        network: Encoders, trunks and core of each policy.
        spaces: Of one environment.
        name: Of the algorithm, for errors.

    Raises:
        ConfigError: The environment has one agent; or see `Ppo`.
    """

    def __init__(
        self, config: IppoConfig, network: NetworkSpec, spaces: Spaces, *, name: str = "ippo"
    ) -> None:
        self._config = config
        self._state_size = state_size(network.core)
        self._view = IndependentView(name, spaces, self._state_size)
        self._members = {
            policy.name: Ppo(
                config,
                self._view.spec_of(policy, network),
                self._view.spaces_of(policy),
                name=name,
                central=self._critic_space(policy),
            )
            for policy in self._view.team.policies
        }
        modules = tuple(f"policies.{policy}" for policy in self._members)
        self._step = GradientStep(
            loss=self.loss,
            learning_rate=config.learning_rate,
            epsilon=ADAM_EPSILON,
            max_gradient_norm=config.max_gradient_norm,
            apart=modules if len(modules) > 1 else (),
        )

    def _critic_space(self, policy: SharedPolicy) -> Box | None:
        """What the value of a policy's agent sees; None: what the agent does."""
        return None

    def _critic_input(self, batch: Batch, policy: SharedPolicy) -> dict[str, Tensor]:
        """The same in a batch, as `CENTRAL` [T+1, B x agents, D]; nothing if it is None."""
        return {}

    def samples(self) -> SampleRequest:
        """See `Algorithm`."""
        config, num_agents = self._config, len(self._view.team.agents)
        size = num_agents * self._state_size
        state = [Field(STATE, "float32", (size,), num_rows=1)] if size else []
        return SampleRequest(
            rollout_steps=config.rollout_steps,
            batch_steps=config.batch_steps,
            fields=(*self._view.fields, Field("log_prob", "float32", (num_agents,)), *state),
            corrects_staleness=config.corrects_staleness,
            needs_versions=config.lag_weights,
            corrections=CORRECTIONS,
            shares_batches=True,
            # The first ends an update for all policies, the other is one factor for all.
            trains_apart=config.target_kl is None and not config.ess_learning_rate,
            unread_by_act=type(config).__struct_fields__,
            unread_by_step=(*UNREAD_BY_STEP, "share_reward"),
            follows_progress=set_keys(config, *SCHEDULES),
        )

    def network(self) -> TeamNetwork:
        """See `Algorithm`."""
        return TeamNetwork({name: member.network() for name, member in self._members.items()})

    def init(self, seed: int) -> LearnerState:
        """See `Algorithm`."""
        return initial_state(self.network, seed)

    def noise(self, generator: torch.Generator, num_steps: int, env_slice: EnvSlice) -> Tensor:
        """Noise for sampling, float32 [T, B, outputs of all agents]; see `Algorithm`."""
        parts = []
        for policy in self._view.policies:
            size, member = len(policy.agents), self._members[policy.name]
            first, count, total = env_slice.first, env_slice.count, env_slice.total
            own = member.noise(
                generator, num_steps, EnvSlice(size * first, size * count, size * total)
            )
            parts.append(own.view(num_steps, count, size * own.shape[-1]))
        return torch.cat(parts, -1)

    def act(self, network: nn.Module, inputs: Inputs, noise: Tensor) -> dict[str, Tensor]:
        """Samples each policy; see `Algorithm`."""
        assert isinstance(network, TeamNetwork)
        assert not isinstance(inputs, Tensor)
        chosen = {}
        for policy, part in zip(self._view.policies, self._view.noise(noise), strict=True):
            own = network.policies[policy.name]
            values = self._view.inputs(inputs, policy)
            chosen[policy.name] = self._members[policy.name].act(own, values, part)
        return self._view.together(inputs, chosen)

    def act_greedily(self, network: nn.Module, inputs: Inputs) -> Tensor | dict[str, Tensor]:
        """The mode of each policy."""
        assert isinstance(network, TeamNetwork)
        assert not isinstance(inputs, Tensor)
        chosen = {}
        for policy in self._view.policies:
            own = network.policies[policy.name]
            values = self._view.inputs(inputs, policy)
            best = self._members[policy.name].act_greedily(own, values)
            chosen[policy.name] = {"action": best} if isinstance(best, Tensor) else best
        joint = self._view.together(inputs, chosen)
        return joint if self._state_size else joint["action"]

    def update(self, state: LearnerState, batch: Batch) -> UpdateResult:
        """See `Algorithm`. With `target_kl` it ends for all policies when one moved too far, and
        `ess_learning_rate` follows the policy with the smallest effective sample size."""
        config, network = self._config, state.network
        assert isinstance(network, TeamNetwork)
        parts = {policy.name: self._batch(batch, policy) for policy in self._view.policies}
        samples = {
            name: self._members[name].prepare(
                network.policies[name], part, state.progress, state.version
            )
            for name, part in parts.items()
        }
        scaled = self._scaled_rate(samples, state.replicas)
        rate = scaled.get(RATE_FACTOR, 1.0)
        order = rows_of_epochs(config, batch["valid"].shape, state, bool(self._state_size))
        divergences = range(DIVERGENCE, len(METRICS) * len(parts), len(METRICS))
        rows = self._rows(samples)
        is_told = config.diagnostics and is_due(state, len(order))
        first = self._log_ratios(network, parts) if is_told else None
        told = take_epochs(config, state, self._step, rows, order, divergences, rate)
        metrics = state.replicas.sum(told.mean(0))
        for name, part in parts.items():
            self._members[name].learn_statistics(
                network.policies[name], part, samples[name], state.replicas
            )
        named = dict(zip(self._metrics, metrics.tolist(), strict=True))
        num_epochs = config.num_epochs * len(told) // len(order)
        num_samples = num_epochs * int(batch["valid"].sum())
        named |= changing(config, state.progress) | scaled
        ratios = None
        if first is not None:
            last, limits = self._log_ratios(network, parts), config.limits(state.progress)
            ratios = LogRatios(first, last, limits, config.decoupled)
        return UpdateResult(num_samples, named, ratios=ratios)

    def _log_ratios(self, network: TeamNetwork, parts: Mapping[str, Batch]) -> Tensor:
        """Of all agents, in the order of policies, [T, B, agents]; NaN where one is absent."""
        of_each = []
        for policy in self._view.policies:
            own = log_ratios(network.policies[policy.name], parts[policy.name])
            of_each.append(own.view(len(own), -1, len(policy.agents)))
        return torch.cat(of_each, -1)

    def _scaled_rate(
        self, samples: Mapping[str, Samples], replicas: ReplicaGroup
    ) -> dict[str, float]:
        """See `Ppo.scaled_rate`: the smallest factor of all policies."""
        of_each = [self._members[name].scaled_rate(own, replicas) for name, own in samples.items()]
        return min(of_each, key=lambda scaled: scaled.get(RATE_FACTOR, 1.0))

    @property
    def _metrics(self) -> list[str]:
        if len(self._members) == 1:
            return list(METRICS)
        return [f"{name}.{policy.name}" for policy in self._view.policies for name in METRICS]

    def _batch(self, batch: Batch, policy: SharedPolicy) -> Batch:
        own = self._view.batch(batch, policy, share_reward=self._config.share_reward)
        if VERSION in batch:
            own = {**own, VERSION: batch[VERSION].repeat_interleave(len(policy.agents))}
        return {**own, **self._critic_input(batch, policy)}

    def _rows(self, samples: Mapping[str, Samples]) -> dict[str, Tensor]:
        """Rows of the team's steps, or with a memory of its sequences, from those of each policy:
        `NAME.FIELD` [N, agents, ...] from [N x agents, ...]."""
        rows = {}
        for policy in self._view.policies:
            size = len(policy.agents)
            for name, values in samples[policy.name].items():
                shape = (values.shape[0] // size, size, *values.shape[1:])
                rows[f"{policy.name}.{name}"] = values.view(shape)
        return rows

    def loss(
        self, network: nn.Module, minibatch: Batch, replicas: ReplicaGroup = SINGLE_REPLICA
    ) -> tuple[Tensor, Tensor]:
        """The sum of the policies' losses, each averaged over the steps of its agents.

        Args:
            network: The parameters that learn.
            minibatch: `NAME.FIELD` of each policy, [N, agents, ...].
            replicas: The learners with the other shares of this minibatch.

        Returns:
            The loss, a scalar, and `METRICS` of each policy, detached; the share of these samples.
        """
        assert isinstance(network, TeamNetwork)
        losses, metrics = [], []
        for policy in self._view.policies:
            start = f"{policy.name}."
            own = {
                name.removeprefix(start): values.flatten(0, 1)
                for name, values in minibatch.items()
                if name.startswith(start)
            }
            member = self._members[policy.name]
            loss, told = member.loss(network.policies[policy.name], own, replicas)
            losses.append(loss)
            metrics.append(told)
        return torch.stack(losses).sum(), torch.cat(metrics)
