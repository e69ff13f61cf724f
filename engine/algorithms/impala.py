"""IMPALA: actor-critic with V-trace (Espeholt et al., 2018).

Actors run ahead of the learner; V-trace corrects for off-policy samples with importance weights.
One gradient step per batch. Two departures from the paper: the loss is a
mean over steps instead of a sum, so that the learning rate does not depend on the batch; and the
optimiser is Adam instead of RMSProp.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from engine.algorithms.actor_critic import (
    ActorCritic,
    entropy_bonus,
    entropy_schedule,
    evaluate_rollouts,
    log_ratios,
)
from engine.algorithms.base import Batch, LearnerState, SampleRequest, Spaces, UpdateResult
from engine.algorithms.gradient import GradientStep
from engine.algorithms.networks import PolicyValueNetwork, learn_statistics
from engine.algorithms.off_policy.corrections import (
    LAG_WEIGHT,
    RATE_FACTOR,
    VERSION,
    check_truncation,
    effective_share,
    lag_weights,
    scaled_rate,
    step_weights,
)
from engine.algorithms.off_policy.ratios import LogRatios, is_due
from engine.algorithms.replicas import SINGLE_REPLICA, ReplicaGroup, shared_step
from engine.algorithms.returns import vtrace
from engine.algorithms.schedules import beside, factor, set_keys
from engine.spec import (
    NetworkSpec,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    Spec,
    UnitInterval,
)


class ImpalaConfig(Spec, frozen=True, kw_only=True):
    """Actor-critic whose V-trace corrects for off-policy samples (Espeholt et al., 2018)."""

    learning_rate: PositiveFloat = 6e-4
    """Step size of Adam."""
    learning_rate_final: NonNegativeFloat | None = None
    """Reached at `stop.env_steps`, linearly; `null`: `learning_rate` is constant."""
    adam_epsilon: PositiveFloat = 1e-5
    """Added to the denominator of Adam's step."""
    discount: UnitInterval = 0.99
    """Gamma: how much a reward one step later counts."""
    trace_lambda: UnitInterval = 1.0
    """Lambda of V-trace, a factor of all trace weights; 1 is the paper's."""
    max_rho: PositiveFloat = 1.0
    """Truncation of the importance weight of a step; it determines which policy is evaluated."""
    max_c: PositiveFloat = 1.0
    """Truncation of the weights of a trace; it determines how fast values converge."""
    entropy_coefficient: NonNegativeFloat = 0.01
    """Weight of the entropy bonus in the loss; more of it explores longer."""
    entropy_coefficient_final: NonNegativeFloat | None = None
    """Reached at `stop.env_steps`, linearly; `null`: `entropy_coefficient` is constant."""
    value_coefficient: NonNegativeFloat = 0.5
    """Weight of the value loss."""
    max_gradient_norm: PositiveFloat = 40.0
    """Longer gradients are scaled down to this norm."""
    normalize_reward: bool = False
    """Divide rewards by the standard deviation of returns, kept by the learner."""
    lag_weights: bool = False
    """Weight each step by 1 / (1 + lag), in weights versions."""
    ess_learning_rate: UnitInterval = 0.0
    """Multiply the learning rate of an update by this power of its effective sample size, as a
    share of the batch; 0.5 suits Adam (Huang et al., 2026), 0 leaves it."""
    diagnostics: bool = True
    """Report the importance ratios of each batch, as a whole and by lag, in the trace."""
    rollout_steps: PositiveInt = 20
    """Steps of each environment in one rollout."""
    batch_steps: PositiveInt = 640
    """Env steps of one batch, which is one optimiser step: a multiple of `rollout_steps` times
    `env.num_envs`."""


class Impala(ActorCritic):
    """IMPALA for any actions, with or without a memory.

    Args:
        config: Hyperparameters.
        network: Encoders, trunks and core.
        spaces: Of one environment.

    Raises:
        ConfigError: A space is not supported, or truncation levels are in the wrong order.
    """

    def __init__(self, config: ImpalaConfig, network: NetworkSpec, spaces: Spaces) -> None:
        super().__init__("impala", network, spaces, normalizes_reward=config.normalize_reward)
        check_truncation(config.max_rho, config.max_c)
        self._config = config
        self._step = GradientStep(
            loss=self._told_loss,
            learning_rate=config.learning_rate,
            epsilon=config.adam_epsilon,
            max_gradient_norm=config.max_gradient_norm,
        )

    def samples(self) -> SampleRequest:
        return SampleRequest(
            rollout_steps=self._config.rollout_steps,
            batch_steps=self._config.batch_steps,
            fields=self.fields,
            corrects_staleness=True,
            needs_versions=self._config.lag_weights,
            shares_batches=True,
            unread_by_act=ImpalaConfig.__struct_fields__,
            unread_by_step=("learning_rate", "learning_rate_final", "ess_learning_rate"),
            follows_progress=set_keys(
                self._config, "learning_rate_final", "entropy_coefficient_final"
            ),
        )

    def update(self, state: LearnerState, batch: Batch) -> UpdateResult:
        config, changing = self._config, entropy_schedule(self._config, state.progress)
        samples = {**batch, **beside(batch["log_prob"], changing)}
        samples.pop(VERSION, None)
        if config.lag_weights:
            samples[LAG_WEIGHT] = lag_weights(batch, state.version)
        scaled = scaled_rate(config.ess_learning_rate, lambda: self._effective_share(state, batch))
        step = shared_step(self._step, state.replicas)
        rate = factor(config.learning_rate, config.learning_rate_final, state.progress)
        rate *= scaled.get(RATE_FACTOR, 1.0)
        is_told = config.diagnostics and is_due(state, 1)
        first = log_ratios(state.network, batch) if is_told else None
        (told,) = state.steps.take(state, step, samples, None, rate)
        metrics = told[: len(_METRICS)]
        returns = told[len(_METRICS) :].view(batch["reward"].shape)
        state.num_updates += 1
        learn_statistics(state.network, batch, returns, state.replicas)
        named = dict(zip(_METRICS, state.replicas.sum(metrics).tolist(), strict=True))
        named |= changing | scaled
        ratios = None
        if first is not None:
            limits = (-math.inf, math.log(config.max_rho))
            ratios = LogRatios(first, log_ratios(state.network, batch), limits)
        return UpdateResult(int(batch["valid"].sum()), named, ratios=ratios)

    @torch.no_grad()
    def _effective_share(self, state: LearnerState, batch: Batch) -> float:
        """ESS / N of the batch before the update."""
        log_ratio = evaluate_rollouts(state.network, batch)[0] - batch["log_prob"]
        return effective_share(log_ratio, batch["valid"], state.replicas)

    def _told_loss(
        self, network: nn.Module, batch: Batch, replicas: ReplicaGroup = SINGLE_REPLICA
    ) -> tuple[Tensor, Tensor]:
        """The loss, and its metrics as one vector, as `GradientStep` requires."""
        loss, metrics, returns = self._loss(network, batch, replicas)
        return loss, torch.cat((metrics, returns.flatten()))

    def _loss(
        self, network: nn.Module, batch: Batch, replicas: ReplicaGroup = SINGLE_REPLICA
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The three terms of section 4.2, averaged over the valid steps.

        Args:
            network: The parameters that learn.
            batch: observation and mask [T+1, B, ...], the others [T, B]; `state` [1, B, S]; with
                a schedule, `entropy_coefficient`.
            replicas: The learners with the other shares of this batch.

        Returns:
            The loss and the metrics of `_METRICS`, this batch's share of each; the value targets
            [T, B]. Metrics and targets are detached.
        """
        assert isinstance(network, PolicyValueNetwork)
        config = self._config
        valid = batch["valid"].to(batch["reward"].dtype)
        weight = step_weights(valid, batch, replicas).flatten()
        log_prob, entropy_t, value = evaluate_rollouts(network, batch)
        log_ratio = log_prob - batch["log_prob"]
        with torch.no_grad():
            targets = vtrace(
                log_ratio,
                batch["reward"] * network.reward_scale,
                value,
                batch["terminated"],
                batch["truncated"],
                discount=config.discount,
                trace_lambda=config.trace_lambda,
                max_rho=config.max_rho,
                max_c=config.max_c,
            )
        policy_loss = -(weight @ (targets.advantage * log_prob).flatten())
        value_loss = weight @ (value[:-1] - targets.value_target).square().flatten()
        coefficient = batch.get("entropy_coefficient", config.entropy_coefficient)
        entropy, bonus = entropy_bonus(entropy_t, weight, coefficient)
        loss = policy_loss + config.value_coefficient * value_loss - bonus
        with torch.no_grad():
            ratio = log_ratio.exp()
            rho = weight @ ratio.clamp(max=config.max_rho).flatten()
            approximate_kl = weight @ (ratio - 1 - log_ratio).flatten()
            metrics = torch.stack((policy_loss, value_loss, entropy, rho, approximate_kl)).detach()
        return loss, metrics, targets.value_target


_METRICS = ("policy_loss", "value_loss", "entropy", "rho_mean", "approximate_kl")
