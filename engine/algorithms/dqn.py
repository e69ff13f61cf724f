"""Deep Q-learning (Mnih et al., 2015), with the usual options, and Ape-X (Horgan et al., 2018).

Options: double (van Hasselt et al., 2016), dueling (Wang et al., 2016), n-step returns and
prioritised replay (Schaul et al., 2016); the replay store provides both on request.

Exploration belongs to the weights: epsilon is a parameter that no gradient reaches. The learner
lowers it during training, and actors receive it with the policy that it belongs to.

With a memory, `network.core`, it is `engine.algorithms.recurrent_dqn`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Literal, TypeAlias

import torch
from msgspec import Meta
from torch import Tensor, nn

from engine.algorithms.base import (
    Batch,
    EnvSlice,
    LearnerState,
    ReplayRequest,
    SampleRequest,
    Spaces,
    TargetNetwork,
    UpdateResult,
    check_sizes,
    initial_state,
    seeded,
)
from engine.algorithms.gradient import GradientStep
from engine.algorithms.q_network import QNetwork, among_valid, random_action
from engine.algorithms.replicas import SINGLE_REPLICA, ReplicaGroup, part_of_whole, shared_step
from engine.algorithms.schedules import linear, set_keys
from engine.errors import ConfigError
from engine.layers.flat import flatten
from engine.layers.inputs import Inputs, Observation, map_leaves, mask_of, observation_of
from engine.rollout import NEXT, Field
from engine.spaces.action_parts import ActionParts, action_field, parts_of
from engine.spaces.leaves import AnySpace
from engine.spaces.observations import MASK, OBSERVATION, mask_field, observation_fields
from engine.spec import (
    NetworkSpec,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Spec,
    UnitInterval,
)

VALUE_FIELDS = ("q_taken", "q_best")
PositiveUnit: TypeAlias = Annotated[float, Meta(gt=0.0, le=1.0)]


_UNREAD_BY_STEP = (
    *("learning_rate", "learning_rate_final", "learning_rate_decay_env_steps"),
    *("discount", "n_step", "replay_ratio", "replay_capacity", "min_replay_size"),
    *("prioritized", "priority_exponent", "initial_priorities"),
    *("importance_exponent", "importance_exponent_final"),
    *("target_update_period", "target_update_rate"),
    *("epsilon_initial", "epsilon_final", "epsilon_spread"),
    *("epsilon_decay_env_steps", "epsilon_decay_fraction"),
)
"""Hyperparameters that no gradient step reads; discounts come with the samples."""


class DqnConfig(Spec, frozen=True, kw_only=True):
    """Deep Q-learning (Mnih et al., 2015), with the usual options; R2D2 with `network.core`."""

    learning_rate: PositiveFloat = 1e-3
    """Step size of Adam."""
    learning_rate_final: PositiveFloat | None = None
    """Final value of a linear decay over `learning_rate_decay_env_steps`; `null`: constant."""
    learning_rate_decay_env_steps: PositiveInt = 100_000
    """Env steps over which the learning rate falls to `learning_rate_final`."""
    adam_epsilon: PositiveFloat = 1e-8
    """Added to the denominator of Adam's step."""
    discount: UnitInterval = 0.99
    """Gamma: how much a reward one step later counts."""
    loss: Literal["huber", "squared"] = "huber"
    """Of a TD error d: `huber` is d^2 / 2, or |d| - 1/2 beyond 1; `squared` is d^2."""
    double: bool = True
    """Choose the best next action with the learning network, value it with the target network."""
    dueling: bool = False
    """State value and advantages apart; both are linear in the trunk's features."""
    n_step: PositiveInt = 1
    """Rewards that are added up before the value of a later state takes over, in env steps."""
    prioritized: bool = False
    """Draw samples with large TD errors more often (Schaul et al., 2016)."""
    priority_exponent: UnitInterval = 0.6
    """Alpha: how much more often; 0 draws uniformly. Only if `prioritized`."""
    importance_exponent: UnitInterval = 0.4
    """Beta: how far importance weights correct for it; 1 fully. Only if `prioritized`."""
    importance_exponent_final: UnitInterval | None = None
    """Reached at `stop.env_steps`, linearly; `null`: `importance_exponent` is constant."""
    initial_priorities: bool = False
    """Set initial priorities to the actors' TD errors instead of the largest priority so far."""
    batch_size: PositiveInt = 32
    """Transitions of an optimiser step; with `network.core`, sequences of `rollout_steps` each."""
    updates_per_batch: PositiveInt = 16
    """Optimiser steps for each message from the replay buffer, and for each weights version."""
    replay_ratio: PositiveFloat = 8.0
    """Samples trained for each env step collected; 8 is a batch of 32 every 4 env steps."""
    replay_capacity: PositiveInt = 100_000
    """Env steps that the replay store holds; the oldest are overwritten."""
    min_replay_size: NonNegativeInt = 1_000
    """Env steps collected before training starts."""
    target_update_period: PositiveInt = 500
    """Optimiser steps between two moves of the target network, rounded up to whole messages: a
    multiple of `updates_per_batch` is kept exactly."""
    target_update_rate: PositiveUnit = 1.0
    """How far the target then moves to the network: 1 copies it, less follows (Lillicrap, 2016)."""
    max_gradient_norm: PositiveFloat = 10.0
    """Longer gradients are scaled down to this norm."""
    epsilon_initial: UnitInterval = 1.0
    """Probability of a random action at the start."""
    epsilon_final: UnitInterval = 0.05
    """Probability of a random action after the decay."""
    epsilon_decay_env_steps: NonNegativeInt = 10_000
    """Env steps over which epsilon falls linearly, after `min_replay_size`."""
    epsilon_decay_fraction: PositiveUnit | None = None
    """Instead: the share of `stop.env_steps`, from the first, over which epsilon falls linearly."""
    epsilon_spread: NonNegativeFloat = 0.0
    """Environment i of N explores with epsilon^(1 + spread i / (N - 1)); Ape-X uses 7."""
    rollout_steps: PositiveInt = 16
    """Steps of each environment in one rollout."""
    burn_in_steps: NonNegativeInt = 8
    """With `network.core`: steps before a sequence over which both networks only refresh their
    memory. They are part of one rollout, so not more than `rollout_steps` are used."""


class ApexConfig(DqnConfig, frozen=True, kw_only=True):
    """Deep Q-learning with many actors and prioritised replay: DQN with the defaults of Ape-X
    (Horgan et al., 2018)."""

    dueling: bool = True
    n_step: PositiveInt = 3
    prioritized: bool = True
    initial_priorities: bool = True
    epsilon_initial: UnitInterval = 0.4
    epsilon_final: UnitInterval = 0.4
    epsilon_spread: NonNegativeFloat = 7.0


class Dqn:
    """DQN for discrete actions; Ape-X is the same with other defaults.

    Args:
        config: Hyperparameters.
        network: Encoders and trunk.
        spaces: Of one environment.

    Raises:
        ConfigError: Actions are not one discrete choice, or sizes that can never be satisfied.
    """

    def __init__(self, config: DqnConfig, network: NetworkSpec, spaces: Spaces) -> None:
        self._num_actions = _one_choice(spaces.action)
        check_sizes(config.min_replay_size, config.replay_capacity)
        if config.epsilon_decay_fraction is not None and config.epsilon_decay_env_steps != _DECAY:
            raise ConfigError(
                "epsilon falls over env steps or over a fraction of them, not both",
                where="algorithm.epsilon_decay_fraction",
                fix="leave algorithm.epsilon_decay_env_steps out",
            )
        self._config = config
        self._network_spec = network
        self._spaces = spaces
        self._action_field = action_field(spaces.action)
        self._sends_values = config.prioritized and config.initial_priorities
        self._step = GradientStep(
            loss=self._loss,
            learning_rate=config.learning_rate,
            epsilon=config.adam_epsilon,
            max_gradient_norm=config.max_gradient_norm,
        )

    @property
    def fields(self) -> tuple[Field, ...]:
        """The fields of a rollout."""
        spaces, values = self._spaces, VALUE_FIELDS if self._sends_values else ()
        mask = [mask_field(self._num_actions)] if spaces.has_action_mask else []
        return (
            *observation_fields(spaces.observation),
            *mask,
            self._action_field,
            *(Field(name, "float32") for name in values),
        )

    def samples(self) -> SampleRequest:
        config = self._config
        return SampleRequest(
            rollout_steps=config.rollout_steps,
            fields=self.fields,
            replay=self._replay,
            corrects_staleness=True,
            shares_batches=True,
            unread_by_act=DqnConfig.__struct_fields__,
            unread_by_step=_UNREAD_BY_STEP,
            follows_progress=set_keys(
                config, "epsilon_decay_fraction", "importance_exponent_final"
            ),
            scheduled_parameters=("epsilon",),
        )

    @property
    def _replay(self) -> ReplayRequest:
        config = self._config
        return ReplayRequest(
            capacity=config.replay_capacity,
            min_size=config.min_replay_size,
            batch_size=config.batch_size,
            updates_per_batch=config.updates_per_batch,
            replay_ratio=config.replay_ratio,
            n_step=config.n_step,
            discount=config.discount,
            priority_exponent=config.priority_exponent if config.prioritized else 0.0,
            importance_exponent=self._exponent_of_store,
            value_fields=VALUE_FIELDS if self._sends_values else None,
        )

    @property
    def _exponent_of_store(self) -> float:
        """Beta of the weights that come with samples; 1 if `_with_beta` raises them to another."""
        config = self._config
        return config.importance_exponent if config.importance_exponent_final is None else 1.0

    def network(self) -> QNetwork:
        return QNetwork(
            self._spaces.observation, self._num_actions, self._network_spec, self._config.dueling
        )

    def init(self, seed: int) -> LearnerState:
        state = initial_state(self.network, seed)
        assert isinstance(state.network, QNetwork)
        state.network.epsilon.fill_(self._config.epsilon_initial)
        target = seeded(self.network, seed).requires_grad_(False)
        state.target = TargetNetwork(target, flatten(target))
        return state

    def noise(self, generator: torch.Generator, num_steps: int, env_slice: EnvSlice) -> Tensor:
        """Two numbers in [0, 1) per step, float32 [T, B, 2]: explore if the first is below epsilon;
        the second chooses the action.

        Horgan et al. (2018), section 4.1, explore in environment i of N with epsilon^e_i, where
        e_i = 1 + spread i / (N - 1). That u < epsilon^e_i is the same as u^(1 / e_i) < epsilon.
        """
        device = generator.device
        drawn = torch.rand(num_steps, env_slice.count, 2, generator=generator, device=device)
        index = torch.arange(env_slice.first, env_slice.first + env_slice.count, device=device)
        exponent = 1 + self._config.epsilon_spread * index / max(env_slice.total - 1, 1)
        drawn[..., 0].pow_(1 / exponent)
        return drawn

    def act(self, network: nn.Module, inputs: Inputs, noise: Tensor) -> dict[str, Tensor]:
        """Epsilon-greedy among the valid actions; see `Algorithm`."""
        assert isinstance(network, QNetwork)
        mask = mask_of(inputs)
        q, memory = self._values(network, inputs)
        best, greedy = among_valid(q, mask).max(dim=-1)
        explores, random = noise.unbind(-1)
        any_action = random_action(random, q.shape[-1], mask)
        a_t = torch.where(explores < network.epsilon, any_action, greedy)
        chosen = {"action": self._shaped(a_t), **memory}
        if not self._sends_values:
            return chosen
        taken = q.gather(-1, a_t.unsqueeze(-1)).squeeze(-1)
        return {**chosen, **dict(zip(VALUE_FIELDS, (taken, best), strict=True))}

    def act_greedily(self, network: nn.Module, inputs: Inputs) -> Tensor | Mapping[str, Tensor]:
        assert isinstance(network, QNetwork)
        q, memory = self._values(network, inputs)
        a_t = self._shaped(among_valid(q, mask_of(inputs)).argmax(dim=-1))
        return {"action": a_t, **memory} if memory else a_t

    def _values(self, network: QNetwork, inputs: Inputs) -> tuple[Tensor, dict[str, Tensor]]:
        """q(s, .) [B, num_actions], and what else acting returns."""
        return network.forward(observation_of(inputs)), {}

    def _shaped(self, action: Tensor) -> Tensor:
        """Actions [B] in the shape of their field."""
        return action.view(-1, *self._action_field.shape)

    def update(self, state: LearnerState, batch: Batch) -> UpdateResult:
        assert isinstance(state.network, QNetwork)
        assert state.target is not None
        config = self._config
        num_updates, batch_size = batch["weight"].shape
        samples = self._with_beta(self._prepare(state.target, batch), state.progress)
        order = torch.arange(num_updates * batch_size).view(num_updates, batch_size)
        rate = self._learning_rate(state.num_updates) / config.learning_rate
        told = state.steps.take(
            state, shared_step(self._step, state.replicas), samples, order, rate
        )
        metrics = state.replicas.sum(told[:, : len(_METRICS)].mean(0))
        errors = told[:, len(_METRICS) :]
        before, state.num_updates = state.num_updates, state.num_updates + num_updates
        period = config.target_update_period
        if state.num_updates // period > before // period:
            follower = state.target.weights.vector.detach()
            follower.lerp_(state.weights.vector.detach(), config.target_update_rate)
        state.network.epsilon.fill_(self._epsilon(state))
        if state.network.input.normalizes:
            state.network.input.learn(self._observed(batch), state.replicas)
        named = dict(zip(_METRICS, metrics.tolist(), strict=True))
        named["epsilon"] = float(state.network.epsilon)
        samples_trained = num_updates * batch_size * self._replay.samples_per_draw
        return UpdateResult(samples_trained, named, errors if config.prioritized else None)

    def _prepare(self, target: TargetNetwork, batch: Batch) -> dict[str, Tensor]:
        """The samples of all updates, [updates x batch size, ...], with values of the target
        network, which does not change within a message."""
        samples = {
            name: values.flatten(0, 1)
            for name, values in batch.items()
            if name not in ("key", "version")
        }
        with torch.no_grad():
            next_q = target.network(observation_of(samples, NEXT_OBSERVATION))
        return samples | {"next_q": next_q, "action": samples["action"].view(len(next_q))}

    def _with_beta(self, samples: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
        """Weights with the exponent beta of a schedule. The largest of a draw is 1, also then."""
        config = self._config
        if config.importance_exponent_final is None:
            return samples
        beta = linear(config.importance_exponent, config.importance_exponent_final, progress)
        return samples | {"weight": samples["weight"].pow(beta)}

    def _observed(self, batch: Batch) -> Observation:
        """The observations that were trained on, [N, ...]."""
        return map_leaves(lambda leaf: leaf.flatten(0, 1), observation_of(batch))

    def _loss(
        self, network: nn.Module, minibatch: Batch, replicas: ReplicaGroup = SINGLE_REPLICA
    ) -> tuple[Tensor, Tensor]:
        """Loss of the TD error delta, weighted, averaged over the samples.

            delta = r + discount q_target(s_t, a*) - q(s_tm1, a_tm1)
            a*    = argmax_a q(s_t, a) if double, else argmax_a q_target(s_t, a)

        Args:
            network: The network to train.
            minibatch: Samples, [N, ...]; `discount` is 0 after termination; `next_q` is
                q_target(s_t, .), [N, num_actions].
            replicas: The learners with the other shares of these samples.

        Returns:
            The loss, a scalar; the metrics of `_METRICS` and |delta|, [3 + N], detached. Loss and
            metrics are the share of these samples.
        """
        next_q = minibatch["next_q"]
        assert next_q.shape == (*minibatch["reward"].shape, self._num_actions), next_q.shape
        with torch.no_grad():
            ranking = next_q
            if self._config.double:
                ranking = network(observation_of(minibatch, NEXT_OBSERVATION))
            ranking = among_valid(ranking, minibatch.get(NEXT_MASK))
            best = ranking.argmax(dim=-1, keepdim=True)
            target = torch.addcmul(
                minibatch["reward"], minibatch["discount"], next_q.gather(-1, best).squeeze(-1)
            )
        q_tm1 = network(observation_of(minibatch))
        q = q_tm1.gather(-1, minibatch["action"].unsqueeze(-1)).squeeze(-1)
        assert q.shape == target.shape, (q.shape, target.shape)
        losses = LOSSES[self._config.loss](q, target, reduction="none")
        loss = (minibatch["weight"] * losses).mean()
        with torch.no_grad():
            error = (target - q).abs()
            means = torch.stack((loss, error.mean(), q.mean()))
        return share_of_loss(loss, means, error, replicas)

    def _epsilon(self, state: LearnerState) -> float:
        config = self._config
        initial, final = config.epsilon_initial, config.epsilon_final
        if (fraction := config.epsilon_decay_fraction) is not None:
            return linear(initial, final, min(state.progress / fraction, 1.0))
        return self._falling(initial, final, config.epsilon_decay_env_steps, state.num_updates)

    def _learning_rate(self, num_updates: int) -> float:
        config = self._config
        final = config.learning_rate_final or config.learning_rate
        over = config.learning_rate_decay_env_steps
        return self._falling(config.learning_rate, final, over, num_updates)

    def _falling(self, initial: float, final: float, over: int, num_updates: int) -> float:
        """Linear in the env steps that correspond to this many updates."""
        samples = num_updates * self._config.batch_size * self._replay.samples_per_draw
        env_steps = samples / self._config.replay_ratio
        return initial + min(env_steps / max(over, 1), 1.0) * (final - initial)


LOSSES: Mapping[str, Callable[..., Tensor]] = {
    "huber": nn.functional.smooth_l1_loss,
    "squared": nn.functional.mse_loss,
}
_DECAY = DqnConfig().epsilon_decay_env_steps
_METRICS = ("loss", "td_error", "q_mean")
NEXT_OBSERVATION, NEXT_MASK = f"{NEXT}{OBSERVATION}", f"{NEXT}{MASK}"


def share_of_loss(
    loss: Tensor, means: Tensor, errors: Tensor, replicas: ReplicaGroup
) -> tuple[Tensor, Tensor]:
    """What a loss returns: its value, and metrics with the errors; the share of these samples.

    Args:
        loss: Mean over these samples.
        means: The metrics of `_METRICS`, means too.
        errors: |delta| of each sample, [N].
        replicas: The learners with the other shares.
    """
    if replicas.count > 1:
        part = part_of_whole(replicas)
        loss, means = loss * part, means * part
    return loss, torch.cat((means, errors)).detach()


def _one_choice(action: AnySpace) -> int:
    """Number of actions of a space with a single discrete choice; ConfigError for others."""
    parts: ActionParts = parts_of(action)
    if len(parts.nvec) == 1 and not parts.num_reals:
        return parts.nvec[0]
    raise ConfigError(
        f"Q-learning needs discrete actions, one choice in each step; the environment has {action}",
        where="env.id",
        fix="use algorithm.name ppo or impala, or wrap the environment so that one number stands"
        " for each combination of choices",
    )
