"""Proximal policy optimisation with a clipped surrogate (Schulman et al., 2017).

The behaviour policy's log-probabilities come with the samples. The learner computes values on
arrival: in one pass over the whole batch, and with newer parameters than an actor's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from engine.algorithms.actor_critic import ActorCritic
from engine.algorithms.base import Batch, LearnerState, SampleRequest, Spaces, UpdateResult
from engine.algorithms.distributions import Distribution
from engine.algorithms.gradient import GradientStep
from engine.algorithms.inputs import STATE, map_leaves, mask_of, observation_of
from engine.algorithms.networks import PolicyValueNetwork, after_resets, learn_statistics
from engine.algorithms.replicas import SINGLE_REPLICA, ReplicaGroup, minibatch_rows, shared_step
from engine.algorithms.returns import generalized_advantages
from engine.errors import ConfigError
from engine.spec import (
    NetworkSpec,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    Spec,
    UnitInterval,
)


class PpoConfig(Spec, frozen=True, kw_only=True):
    """Proximal policy optimisation with a clipped surrogate (Schulman et al., 2017)."""

    learning_rate: PositiveFloat = 3e-4
    """Step size of Adam."""
    discount: UnitInterval = 0.99
    """Gamma: how much a reward one step later counts."""
    gae_lambda: UnitInterval = 0.95
    """Lambda of generalised advantage estimation: 0 trusts the value of the next state, 1 only
    the rewards."""
    clip_range: PositiveFloat = 0.2
    """Epsilon: how far the probability ratio can move before its gradient is cut."""
    entropy_coefficient: NonNegativeFloat = 0.01
    """Weight of the entropy bonus in the loss; more of it explores longer."""
    value_coefficient: NonNegativeFloat = 0.5
    """Weight of the value loss."""
    max_gradient_norm: PositiveFloat = 0.5
    """Longer gradients are scaled down to this norm."""
    rollout_steps: PositiveInt = 50
    """Steps of each environment in one rollout."""
    batch_steps: PositiveInt = 400
    """Env steps of one batch, after which there is a new weights version: a multiple of
    `rollout_steps` times `env.num_envs`."""
    minibatch_steps: PositiveInt = 200
    """Env steps of one optimiser step; divides `batch_steps`. With `network.core` a multiple of
    `rollout_steps`."""
    num_epochs: PositiveInt = 8
    """How many times each batch is gone through."""
    normalize_reward: bool = False
    """Divide rewards by the standard deviation of returns, kept by the learner."""
    normalize_advantage: bool = True
    """Normalise advantages over the valid steps of each minibatch."""


class Ppo(ActorCritic):
    """PPO for any actions, with or without a memory.

    Args:
        config: Hyperparameters.
        network: Encoders, trunks and core.
        spaces: Of one environment.

    Raises:
        ConfigError: A space is not supported, minibatches do not divide a batch, or with a core
            they are no whole sequences.
    """

    def __init__(self, config: PpoConfig, network: NetworkSpec, spaces: Spaces) -> None:
        super().__init__("ppo", network, spaces, normalizes_reward=config.normalize_reward)
        if config.batch_steps % config.minibatch_steps:
            raise ConfigError(
                f"{config.minibatch_steps} does not divide batch_steps {config.batch_steps}",
                where="algorithm.minibatch_steps",
                fix="choose a divisor",
            )
        if network.core is not None and config.minibatch_steps % config.rollout_steps:
            raise ConfigError(
                f"with network.core a minibatch is whole sequences of rollout_steps"
                f" {config.rollout_steps}, of which {config.minibatch_steps} is no multiple",
                where="algorithm.minibatch_steps",
                fix="choose a multiple of algorithm.rollout_steps",
            )
        self._config = config
        self._step = GradientStep(
            loss=self._loss,
            learning_rate=config.learning_rate,
            epsilon=_ADAM_EPSILON,
            max_gradient_norm=config.max_gradient_norm,
        )

    def samples(self) -> SampleRequest:
        return SampleRequest(
            rollout_steps=self._config.rollout_steps,
            batch_steps=self._config.batch_steps,
            fields=self.fields,
            shares_batches=True,
            unread_by_act=PpoConfig.__struct_fields__,
            unread_by_step=("learning_rate", "discount", "gae_lambda", "num_epochs"),
        )

    def update(self, state: LearnerState, batch: Batch) -> UpdateResult:
        config = self._config
        samples = self._prepare(state, batch)
        num_steps, num_columns = batch["valid"].shape
        # With a memory a row is the whole sequence of one environment.
        length = num_steps if self._state_size else 1
        order = minibatch_rows(
            (num_steps // length, num_columns),
            config.num_epochs,
            config.minibatch_steps // length,
            state.generator,
            state.replicas,
        )
        step = shared_step(self._step, state.replicas)
        metrics = state.replicas.sum(state.steps.take(state, step, samples, order).mean(0))
        state.num_updates += len(order)
        returns = self._in_time(samples["value_target"], batch["valid"].shape)
        learn_statistics(state.network, batch, returns, state.replicas)
        named = dict(zip(_METRICS, metrics.tolist(), strict=True))
        return UpdateResult(config.num_epochs * int(batch["valid"].sum()), named)

    def _prepare(self, state: LearnerState, batch: Batch) -> dict[str, Tensor]:
        """Adds advantages and value targets, then makes rows of steps, [T*B], or with a memory of
        the sequences of all environments, [B, T]."""
        assert isinstance(state.network, PolicyValueNetwork)
        with torch.no_grad():
            value = self._values(state.network, batch)
        advantage = generalized_advantages(
            batch["reward"] * state.network.reward_scale,
            value,
            batch["terminated"],
            batch["truncated"],
            discount=self._config.discount,
            gae_lambda=self._config.gae_lambda,
        )
        samples = {
            **{name: batch[name][:-1] for name in self._names_of_states},
            "action": batch["action"],
            "log_prob": batch["log_prob"],
            "valid": batch["valid"].to(torch.float32),
            "advantage": advantage,
            "value_target": advantage + value[:-1],
        }
        if not self._state_size:
            return {name: values.flatten(0, 1) for name, values in samples.items()}
        sequences = {name: values.transpose(0, 1).contiguous() for name, values in samples.items()}
        return {**sequences, STATE: batch[STATE][0]}

    def _in_time(self, values: Tensor, shape: torch.Size) -> Tensor:
        """One number for each step of `samples`, as [T, B]."""
        return values.t() if self._state_size else values.view(shape)

    def _values(self, network: PolicyValueNetwork, batch: Batch) -> Tensor:
        """v(s_t), [T+1, B]."""
        shape = (len(batch["valid"]) + 1, *batch["valid"].shape[1:])
        observation = observation_of(batch)
        if self._state_size:
            _, value = network.unroll(observation, batch[STATE][0], after_resets(batch["valid"]))
        else:
            value = network.values(map_leaves(lambda leaf: leaf.flatten(0, 1), observation))
        return value.view(shape)

    def _loss(
        self, network: nn.Module, minibatch: Batch, replicas: ReplicaGroup = SINGLE_REPLICA
    ) -> tuple[Tensor, Tensor]:
        """Equation 9 of the paper, averaged over the valid steps.

        Args:
            network: The parameters that learn.
            minibatch: Each [N, ...]; with a memory [N, T, ...], and `state` [N, S].
            replicas: The learners with the other shares of this minibatch.

        Returns:
            The loss, a scalar, and the metrics of `_METRICS`, detached; the share of these samples.
        """
        assert isinstance(network, PolicyValueNetwork)
        config = self._config
        if self._state_size:
            policy, value, minibatch = _unrolled(network, minibatch)
        else:
            policy, value = network.evaluate(observation_of(minibatch), mask_of(minibatch))
        weight = minibatch["valid"] / replicas.sum(minibatch["valid"].sum()).clamp(min=1.0)
        log_ratio = policy.log_prob(minibatch["action"]) - minibatch["log_prob"]
        ratio = log_ratio.exp()
        advantage = minibatch["advantage"]
        if config.normalize_advantage:
            advantage = _normalize(advantage, weight, replicas)
        clipped = ratio.clamp(1 - config.clip_range, 1 + config.clip_range)
        surrogate = torch.minimum(ratio * advantage, clipped * advantage)
        policy_loss = -(weight @ surrogate)
        value_loss = weight @ (value - minibatch["value_target"]).square()
        entropy = weight @ policy.entropy()
        loss = (
            policy_loss
            + config.value_coefficient * value_loss
            - config.entropy_coefficient * entropy
        )
        with torch.no_grad():
            approximate_kl = weight @ (ratio - 1 - log_ratio)
            metrics = torch.stack((policy_loss, value_loss, entropy, approximate_kl)).detach()
        return loss, metrics


def _unrolled(
    network: PolicyValueNetwork, minibatch: Batch
) -> tuple[Distribution, Tensor, dict[str, Tensor]]:
    """Distribution and values [T*N] of N sequences, and all else of each step in the same order."""
    state = minibatch[STATE]
    in_time = {name: v.transpose(0, 1) for name, v in minibatch.items() if name != STATE}
    policy, value = network.unroll(
        observation_of(in_time), state, in_time["valid"], mask_of(in_time)
    )
    return policy, value, {name: values.flatten(0, 1) for name, values in in_time.items()}


_ADAM_EPSILON = 1e-5
_METRICS = ("policy_loss", "value_loss", "entropy", "approximate_kl")


def _normalize(values: Tensor, weight: Tensor, replicas: ReplicaGroup) -> Tensor:
    """Normalises to zero mean and unit variance under `weight`, which sums to 1 over all learners;
    both float32 [N]."""
    centred = values - replicas.sum(weight @ values)
    return centred / (replicas.sum(weight @ centred.square()).sqrt() + 1e-8)
