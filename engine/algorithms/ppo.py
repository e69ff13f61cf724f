"""Proximal policy optimisation with a clipped surrogate (Schulman et al., 2017).

The behaviour policy's log-probabilities come with the samples. The learner computes values on
arrival: in one pass over the whole batch, and with newer parameters than an actor's. Samples of
older policies can be corrected for, see `engine.algorithms.off_policy.corrections`.
"""

from __future__ import annotations

from typing import Any

import torch
from gymnasium.spaces import Box
from torch import Tensor, nn

from engine.algorithms.actor_critic import (
    ActorCritic,
    entropy_bonus,
    evaluate_rollouts,
    log_ratios,
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
from engine.algorithms.off_policy.corrections import (
    LAG_WEIGHT,
    PROXIMAL,
    RATE_FACTOR,
    VERSION,
    effective_share_of,
    lag_weights,
    scaled_rate,
    step_weights,
)
from engine.algorithms.off_policy.ratios import LogRatios, is_due
from engine.algorithms.ppo_config import (
    ADAM_EPSILON,
    CORRECTIONS,
    DIVERGENCE,
    METRICS,
    SCHEDULES,
    UNREAD_BY_PREPARING,
    UNREAD_BY_STEP,
    PpoConfig,
    changing,
    check_config,
)
from engine.algorithms.replicas import SINGLE_REPLICA, ReplicaGroup, normalized
from engine.algorithms.returns import generalized_advantages, vtrace_of_actions
from engine.algorithms.schedules import beside, set_keys
from engine.layers.inputs import STATE, map_leaves, mask_of, observation_of
from engine.spec import NetworkSpec


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
        check_config(config, network)
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
            corrects_staleness=config.corrects_staleness,
            needs_versions=config.lag_weights,
            corrections=CORRECTIONS,
            shares_batches=True,
            unread_by_act=PpoConfig.__struct_fields__,
            unread_by_step=UNREAD_BY_STEP,
            unread_by_preparing=UNREAD_BY_PREPARING,
            follows_progress=set_keys(config, *SCHEDULES),
        )

    def update(self, state: LearnerState, batch: Batch) -> UpdateResult:
        config = self._config
        known = {name: values for name, values in batch.items() if name != VERSION}
        judged = state.preparing.run(state, self.judge, known)
        samples = self._samples(judged, batch, state.progress, state.version)
        order = rows_of_epochs(config, batch["valid"].shape, state, bool(self._state_size))
        scaled = self.scaled_rate(samples, state.replicas)
        rate = scaled.get(RATE_FACTOR, 1.0)
        is_told = config.diagnostics and is_due(state, len(order))
        first = log_ratios(state.network, batch) if is_told else None
        told = take_epochs(config, state, self._step, samples, order, [DIVERGENCE], rate)
        metrics = state.replicas.sum(told.mean(0))
        self.learn_statistics(state.network, batch, samples, state.replicas)
        named = dict(zip(METRICS, metrics.tolist(), strict=True))
        named |= changing(config, state.progress) | scaled
        num_epochs = config.num_epochs * len(told) // len(order)
        ratios = None
        if first is not None:
            last, limits = log_ratios(state.network, batch), config.limits(state.progress)
            ratios = LogRatios(first, last, limits, config.decoupled)
        return UpdateResult(num_epochs * int(batch["valid"].sum()), named, ratios=ratios)

    def scaled_rate(self, samples: Samples, replicas: ReplicaGroup) -> dict[str, float]:
        """`rate_factor`, by which the learning rate is multiplied; empty if by nothing."""
        exponent = self._config.ess_learning_rate
        return scaled_rate(exponent, lambda: effective_share_of(samples, replicas))

    def learn_statistics(
        self, network: nn.Module, batch: Batch, samples: Samples, replicas: ReplicaGroup
    ) -> None:
        """Updates the network's statistics after an update with `samples`, made of `batch`."""
        returns = self._in_time(samples["value_target"], batch["valid"].shape)
        learn_statistics(network, batch, returns, replicas)

    def judge(self, network: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """`advantage`, `value_target` and `value` of each step, and with the options for it ln pi
        before the update, `PROXIMAL`; each [T, B].

        Args:
            network: Before the update.
            batch: See `Batch`.
        """
        assert isinstance(network, PolicyValueNetwork)
        log_prob = None
        if self._config.needs_ratio:
            log_prob, _, value = evaluate_rollouts(network, batch)
        else:
            value = self._values(network, batch)
        advantage, value_target = self._advantages(network, batch, value, log_prob)
        judged = {"advantage": advantage, "value_target": value_target, "value": value[:-1]}
        return judged if log_prob is None else {**judged, PROXIMAL: log_prob}

    @torch.no_grad()
    def prepare(
        self, network: nn.Module, batch: Batch, progress: float = 0.0, version: int = 0
    ) -> dict[str, Tensor]:
        """Adds advantages and value targets, then makes rows of steps, [T*B], or with a memory of
        the sequences of all environments, [B, T]. With the options for it, each row also has the
        value before the update, ln pi before it, a weight, and the numbers of a schedule.

        Args:
            network: Before the update.
            batch: See `Batch`.
            progress, version: See `LearnerState`.
        """
        return self._samples(self.judge(network, batch), batch, progress, version)

    def _samples(
        self, judged: Samples, batch: Batch, progress: float, version: int
    ) -> dict[str, Tensor]:
        """See `prepare`; `judged` is a result of `judge`."""
        config, advantage = self._config, judged["advantage"]
        keeps_proximal = config.decoupled or config.ess_learning_rate > 0
        samples = {
            **{name: batch[name][:-1] for name in self._names_of_states},
            **({CENTRAL: batch[CENTRAL][:-1]} if CENTRAL in batch else {}),
            "action": batch["action"],
            "log_prob": batch["log_prob"],
            "valid": batch["valid"].to(torch.float32),
            "advantage": advantage,
            "value_target": judged["value_target"],
            **({} if config.value_clip_range is None else {"value": judged["value"]}),
            **({PROXIMAL: judged[PROXIMAL]} if keeps_proximal else {}),
            **({LAG_WEIGHT: lag_weights(batch, version)} if config.lag_weights else {}),
            **beside(advantage, changing(config, progress)),
        }
        if not self._state_size:
            return {name: values.flatten(0, 1) for name, values in samples.items()}
        sequences = {name: values.transpose(0, 1).contiguous() for name, values in samples.items()}
        return {**sequences, STATE: batch[STATE][0]}

    def _advantages(
        self, network: PolicyValueNetwork, batch: Batch, value: Tensor, log_prob: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Advantages and value targets, [T, B] each.

        Args:
            network: Scales rewards.
            batch: See `Batch`.
            value: v(s_t), [T+1, B].
            log_prob: ln pi(a_t | s_t), [T, B]; not needed for generalised advantages.
        """
        config = self._config
        reward = batch["reward"] * network.reward_scale
        if (limit := config.normalized_reward_limit) is not None:
            reward = reward.clamp(-limit, limit)
        ends = batch["terminated"], batch["truncated"]
        if config.advantages == "gae":
            advantage = generalized_advantages(
                reward, value, *ends, discount=config.discount, gae_lambda=config.gae_lambda
            )
            return advantage, advantage + value[:-1]
        assert log_prob is not None
        corrected = vtrace_of_actions(
            log_prob - batch["log_prob"],
            reward,
            value,
            *ends,
            discount=config.discount,
            trace_lambda=config.gae_lambda,
            max_rho=config.max_rho,
            max_c=config.max_c,
        )
        return corrected.advantage, corrected.value_target

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

        If it is decoupled, the ratio is that to the proximal policy, and the clipped surrogate of
        a step is multiplied by min(max_importance, proximal / behaviour) (Hilton et al., 2021,
        equation 3).

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
        weight = step_weights(minibatch["valid"], minibatch, replicas)
        behaviour = minibatch["log_prob"]
        anchor = minibatch[PROXIMAL] if config.decoupled else behaviour
        log_ratio = policy.log_prob(minibatch["action"]) - anchor
        ratio = log_ratio.exp()
        advantage = minibatch["advantage"]
        if config.normalize_advantage:
            advantage = normalized(advantage, weight, replicas)
        clip_range: Any = minibatch.get("clip_range", config.clip_range)
        clipped = ratio.clamp(1 - clip_range, 1 + clip_range)
        surrogate = torch.minimum(ratio * advantage, clipped * advantage)
        if config.decoupled:
            surrogate = surrogate * (anchor - behaviour).exp().clamp(max=config.max_importance)
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
