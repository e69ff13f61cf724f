"""Proximal policy optimisation with a clipped surrogate (Schulman et al., 2017).

The behaviour policy's log-probabilities come with the samples. The learner computes values on
arrival: in one pass over the whole batch, and with newer parameters than an actor's.
"""

from __future__ import annotations

from typing import Any

import torch
from gymnasium.spaces import Box
from torch import Tensor, nn

from engine.algorithms.actor_critic import (
    ActorCritic,
    entropy_bonus,
    entropy_schedule,
    rows_of_epochs,
    take_epochs,
)
from engine.algorithms.base import Batch, LearnerState, SampleRequest, Spaces, UpdateResult
from engine.algorithms.gradient import GradientStep, Samples
from engine.algorithms.networks import (
    CENTRAL,
    PolicyValueNetwork,
    after_resets,
    learn_statistics,
    unrolled,
)
from engine.algorithms.replicas import SINGLE_REPLICA, ReplicaGroup, normalized
from engine.algorithms.returns import generalized_advantages
from engine.algorithms.schedules import beside, linear, set_keys
from engine.errors import ConfigError
from engine.layers.inputs import STATE, map_leaves, mask_of, observation_of
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
    learning_rate_final: NonNegativeFloat | None = None
    """Reached at `stop.env_steps`, linearly; `null`: `learning_rate` is constant."""
    discount: UnitInterval = 0.99
    """Gamma: how much a reward one step later counts."""
    gae_lambda: UnitInterval = 0.95
    """Lambda of generalised advantage estimation: 0 trusts the value of the next state, 1 only
    the rewards."""
    clip_range: PositiveFloat = 0.2
    """Epsilon: how far the probability ratio can move before its gradient is cut."""
    clip_range_final: PositiveFloat | None = None
    """Reached at `stop.env_steps`, linearly; `null`: `clip_range` is constant."""
    value_clip_range: PositiveFloat | None = None
    """How far a value can move from that before the update before its gradient is cut; `null`: any
    distance."""
    entropy_coefficient: NonNegativeFloat = 0.01
    """Weight of the entropy bonus in the loss; more of it explores longer."""
    entropy_coefficient_final: NonNegativeFloat | None = None
    """Reached at `stop.env_steps`, linearly; `null`: `entropy_coefficient` is constant."""
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
    target_kl: PositiveFloat | None = None
    """The update ends after an epoch whose last minibatch shows a larger KL divergence from the
    policy that acted; `null`: after `num_epochs`."""
    normalize_reward: bool = False
    """Divide rewards by the standard deviation of returns, kept by the learner."""
    normalized_reward_limit: PositiveFloat | None = None
    """Clip rewards to this distance from 0 after that; `null`: no limit. Only with
    `normalize_reward`."""
    normalize_advantage: bool = True
    """Normalise advantages over the valid steps of each minibatch."""


METRICS = ("policy_loss", "value_loss", "entropy", "approximate_kl")
DIVERGENCE = METRICS.index("approximate_kl")
UNREAD_BY_STEP = (
    *("learning_rate", "learning_rate_final", "discount", "gae_lambda"),
    *("num_epochs", "target_kl", "normalized_reward_limit"),
)
"""Hyperparameters that no gradient step reads; advantages come with the samples."""
SCHEDULES = ("learning_rate_final", "clip_range_final", "entropy_coefficient_final")
ADAM_EPSILON = 1e-5


def changing(config: PpoConfig, progress: float) -> dict[str, float]:
    """What the loss reads as samples because it changes, by the name of its hyperparameter."""
    values = {}
    if config.clip_range_final is not None:
        values["clip_range"] = linear(config.clip_range, config.clip_range_final, progress)
    return values | entropy_schedule(config, progress)


class Ppo(ActorCritic):
    """PPO for any actions, with or without a memory.

    Args:
        config: Hyperparameters.
        network: Encoders, trunks and core.
        spaces: Of one environment.
        name: Of the algorithm, for errors.
        central: What a central value sees; None: what the policy does. It is in batches then, as
            `CENTRAL`, [T+1, B, ...].

    Raises:
        ConfigError: A space is not supported, minibatches do not divide a batch, or with a core
            they are no whole sequences.
    """

    def __init__(
        self,
        config: PpoConfig,
        network: NetworkSpec,
        spaces: Spaces,
        *,
        name: str = "ppo",
        central: Box | None = None,
    ) -> None:
        super().__init__(
            name, network, spaces, central=central, normalizes_reward=config.normalize_reward
        )
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
        if config.normalized_reward_limit is not None and not config.normalize_reward:
            raise ConfigError(
                "rewards are not normalised",
                where="algorithm.normalized_reward_limit",
                fix="set algorithm.normalize_reward=true, or leave the limit out",
            )
        self._config = config
        self._step = GradientStep(
            loss=self.loss,
            learning_rate=config.learning_rate,
            epsilon=ADAM_EPSILON,
            max_gradient_norm=config.max_gradient_norm,
        )

    def samples(self) -> SampleRequest:
        config = self._config
        return SampleRequest(
            rollout_steps=config.rollout_steps,
            batch_steps=config.batch_steps,
            fields=self.fields,
            shares_batches=True,
            unread_by_act=PpoConfig.__struct_fields__,
            unread_by_step=UNREAD_BY_STEP,
            follows_progress=set_keys(config, *SCHEDULES),
        )

    def update(self, state: LearnerState, batch: Batch) -> UpdateResult:
        config = self._config
        samples = self.prepare(state.network, batch, state.progress)
        order = rows_of_epochs(config, batch["valid"].shape, state, bool(self._state_size))
        told = take_epochs(config, state, self._step, samples, order, [DIVERGENCE])
        metrics = state.replicas.sum(told.mean(0))
        self.learn_statistics(state.network, batch, samples, state.replicas)
        named = dict(zip(METRICS, metrics.tolist(), strict=True))
        named |= changing(config, state.progress)
        num_epochs = config.num_epochs * len(told) // len(order)
        return UpdateResult(num_epochs * int(batch["valid"].sum()), named)

    def learn_statistics(
        self, network: nn.Module, batch: Batch, samples: Samples, replicas: ReplicaGroup
    ) -> None:
        """Updates the network's statistics after an update with `samples`, made of `batch`."""
        returns = self._in_time(samples["value_target"], batch["valid"].shape)
        learn_statistics(network, batch, returns, replicas)

    def prepare(self, network: nn.Module, batch: Batch, progress: float = 0.0) -> dict[str, Tensor]:
        """Adds advantages and value targets, then makes rows of steps, [T*B], or with a memory of
        the sequences of all environments, [B, T]. With the options for it, each row also has the
        value before the update and the numbers of a schedule."""
        assert isinstance(network, PolicyValueNetwork)
        config = self._config
        with torch.no_grad():
            value = self._values(network, batch)
        reward = batch["reward"] * network.reward_scale
        if (limit := config.normalized_reward_limit) is not None:
            reward = reward.clamp(-limit, limit)
        advantage = generalized_advantages(
            reward,
            value,
            batch["terminated"],
            batch["truncated"],
            discount=config.discount,
            gae_lambda=config.gae_lambda,
        )
        samples = {
            **{name: batch[name][:-1] for name in self._names_of_states},
            **({CENTRAL: batch[CENTRAL][:-1]} if CENTRAL in batch else {}),
            "action": batch["action"],
            "log_prob": batch["log_prob"],
            "valid": batch["valid"].to(torch.float32),
            "advantage": advantage,
            "value_target": advantage + value[:-1],
            **({} if config.value_clip_range is None else {"value": value[:-1]}),
            **beside(advantage, changing(config, progress)),
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
        observation, central = observation_of(batch), batch.get(CENTRAL)
        if self._state_size:
            continues = after_resets(batch["valid"])
            _, value = network.unroll(observation, batch[STATE][0], continues, central=central)
        else:
            seen = observation if central is None else central
            value = network.values(map_leaves(lambda leaf: leaf.flatten(0, 1), seen))
        return value.view(shape)

    def loss(
        self, network: nn.Module, minibatch: Batch, replicas: ReplicaGroup = SINGLE_REPLICA
    ) -> tuple[Tensor, Tensor]:
        """Equation 9 of the paper, averaged over the valid steps.

        With `value_clip_range` the loss of a value v is the larger one of two, as in the authors'
        code (OpenAI Baselines): (v - target)^2 and (v' - target)^2, where v' is v, clipped to that
        distance from the value before the update.

        Args:
            network: The parameters that learn.
            minibatch: Each [N, ...]; with a memory [N, T, ...], and `state` [N, S].
            replicas: The learners with the other shares of this minibatch.

        Returns:
            The loss, a scalar, and the metrics of `METRICS`, detached; the share of these samples.
        """
        assert isinstance(network, PolicyValueNetwork)
        config = self._config
        if self._state_size:
            policy, value, minibatch = unrolled(network, minibatch)
        else:
            policy, value = network.evaluate(
                observation_of(minibatch), mask_of(minibatch), minibatch.get(CENTRAL)
            )
        weight = minibatch["valid"] / replicas.sum(minibatch["valid"].sum()).clamp(min=1.0)
        log_ratio = policy.log_prob(minibatch["action"]) - minibatch["log_prob"]
        ratio = log_ratio.exp()
        advantage = minibatch["advantage"]
        if config.normalize_advantage:
            advantage = normalized(advantage, weight, replicas)
        clip_range: Any = minibatch.get("clip_range", config.clip_range)
        clipped = ratio.clamp(1 - clip_range, 1 + clip_range)
        surrogate = torch.minimum(ratio * advantage, clipped * advantage)
        policy_loss = -(weight @ surrogate)
        square_error = (value - minibatch["value_target"]).square()
        if (limit := config.value_clip_range) is not None:
            near = minibatch["value"] + (value - minibatch["value"]).clamp(-limit, limit)
            square_error = square_error.maximum((near - minibatch["value_target"]).square())
        value_loss = weight @ square_error
        coefficient = minibatch.get("entropy_coefficient", config.entropy_coefficient)
        entropy, bonus = entropy_bonus(policy.entropy(), weight, coefficient)
        loss = policy_loss + config.value_coefficient * value_loss - bonus
        with torch.no_grad():
            approximate_kl = weight @ (ratio - 1 - log_ratio)
            metrics = torch.stack((policy_loss, value_loss, entropy, approximate_kl)).detach()
        return loss, metrics
