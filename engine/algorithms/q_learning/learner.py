"""What Q-learning of one agent and of many has in common: samples, schedules, exploration, updates.

Each algorithm adds its network, how it acts (`act`, `act_greedily`), and its loss.

Exploration belongs to the weights: epsilon is a parameter that no gradient reaches. The learner
lowers it during training, and actors receive it with the policy that it belongs to.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from engine.algorithms.base import (
    Batch,
    EnvSlice,
    LearnerState,
    ReplayRequest,
    SampleRequest,
    SequenceRequest,
    TargetNetwork,
    UpdateResult,
    check_sizes,
    initial_state,
    seeded,
)
from engine.algorithms.gradient import GradientStep
from engine.algorithms.off_policy.ratios import LogRatios, is_due
from engine.algorithms.q_learning.config import (
    UNREAD_BY_PREPARING,
    UNREAD_BY_STEP,
    QLearningConfig,
)
from engine.algorithms.q_learning.losses import METRICS
from engine.algorithms.replicas import SINGLE_REPLICA, ReplicaGroup, shared_step
from engine.algorithms.schedules import linear, set_keys
from engine.errors import ConfigError
from engine.layers.flat import flatten
from engine.layers.inputs import STATE
from engine.rollout import NEXT, Field
from engine.spaces.action_parts import parts_of
from engine.spaces.leaves import AnySpace
from engine.spaces.observations import MASK, OBSERVATION

NEXT_OBSERVATION, NEXT_MASK = f"{NEXT}{OBSERVATION}", f"{NEXT}{MASK}"


class QLearning(ABC):
    """Learns action values from a replay store.

    Args:
        config: Hyperparameters.
        state_size: Of the memory of all networks that act in one environment; 0 without.

    Raises:
        ConfigError: Sizes that can never be satisfied, or two schedules of epsilon.
    """

    value_fields: tuple[str, str] | None = None
    """See `ReplayRequest`."""

    def __init__(self, config: QLearningConfig, state_size: int) -> None:
        check_sizes(config.min_replay_size, config.replay_capacity)
        if config.epsilon_decay_fraction is not None and config.epsilon_decay_env_steps != _decay(
            config
        ):
            raise ConfigError(
                "epsilon falls over env steps or over a fraction of them, not both",
                where="algorithm.epsilon_decay_fraction",
                fix="leave algorithm.epsilon_decay_env_steps out",
            )
        self._shared = config
        self._state_size = state_size
        self._burn_in_steps = min(config.burn_in_steps, config.rollout_steps)
        self._step = GradientStep(
            loss=self._loss,
            learning_rate=config.learning_rate,
            epsilon=config.adam_epsilon,
            max_gradient_norm=config.max_gradient_norm,
        )

    @property
    def shape_of_choice(self) -> tuple[int, ...]:
        """Axes of what is chosen in one step: none of one agent."""
        return ()

    @property
    @abstractmethod
    def step_fields(self) -> tuple[Field, ...]:
        """The fields of a rollout, without that of a memory."""

    @abstractmethod
    def network(self) -> nn.Module:
        """See `Algorithm`; it has a parameter `epsilon`."""

    @abstractmethod
    def judge(self, target: nn.Module, samples: Batch) -> dict[str, Tensor]:
        """What the target network says of samples, as tensors to add to them, without gradients. It
        does not change within a message, so this is computed once for all updates; see
        `engine.algorithms.returns`."""

    @abstractmethod
    def _loss(
        self, network: nn.Module, minibatch: Batch, replicas: ReplicaGroup = SINGLE_REPLICA
    ) -> tuple[Tensor, Tensor]:
        """See `engine.algorithms.q_learning.losses`."""

    def _log_ratios(self, network: nn.Module, batch: Batch) -> Tensor | None:
        """Logarithms of the importance ratios of the samples of the first optimiser step, [1, batch
        size], in main memory; None if they are not known."""
        return None

    @abstractmethod
    def _normalize(self, state: LearnerState, batch: Batch) -> None:
        """Learns the statistics of inputs that are normalised."""

    @property
    def fields(self) -> tuple[Field, ...]:
        """The fields of a rollout; with a memory also the state before each step."""
        memory = [Field(STATE, "float32", (self._state_size,))] if self._state_size else []
        return (*self.step_fields, *memory)

    def samples(self) -> SampleRequest:
        config = self._shared
        return SampleRequest(
            rollout_steps=config.rollout_steps,
            fields=self.fields,
            replay=self._replay,
            corrects_staleness=True,
            shares_batches=True,
            unread_by_act=config.__struct_fields__,
            unread_by_step=UNREAD_BY_STEP,
            unread_by_preparing=UNREAD_BY_PREPARING,
            follows_progress=set_keys(
                config, "epsilon_decay_fraction", "importance_exponent_final"
            ),
            scheduled_parameters=("epsilon",),
        )

    @property
    def _replay(self) -> ReplayRequest:
        config = self._shared
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
            value_fields=self.value_fields,
            sequence=self._sequence if self._state_size else None,
        )

    @property
    def _sequence(self) -> SequenceRequest:
        return SequenceRequest(
            num_steps=self._shared.rollout_steps, burn_in_steps=self._burn_in_steps
        )

    @property
    def _exponent_of_store(self) -> float:
        """Beta of the weights that come with samples; 1 if `_with_beta` raises them to another."""
        config = self._shared
        return config.importance_exponent if config.importance_exponent_final is None else 1.0

    def init(self, seed: int) -> LearnerState:
        state = initial_state(self.network, seed)
        _set_epsilon(state, self._shared.epsilon_initial)
        target = seeded(self.network, seed).requires_grad_(False)
        state.target = TargetNetwork(target, flatten(target))
        return state

    def noise(self, generator: torch.Generator, num_steps: int, env_slice: EnvSlice) -> Tensor:
        """Two numbers in [0, 1) per step and agent, float32 [T, B, 2] of one agent, [T, B, 2,
        agents] of many: explore if the first is below epsilon; the second chooses the action.

        Horgan et al. (2018), section 4.1, explore in environment i of N with epsilon^e_i, where
        e_i = 1 + spread i / (N - 1). That u < epsilon^e_i is the same as u^(1 / e_i) < epsilon.
        """
        device, shape = generator.device, (num_steps, env_slice.count, 2, *self.shape_of_choice)
        drawn = torch.rand(shape, generator=generator, device=device)
        index = torch.arange(env_slice.first, env_slice.first + env_slice.count, device=device)
        exponent = 1 + self._shared.epsilon_spread * index / max(env_slice.total - 1, 1)
        drawn[:, :, 0].pow_(1 / exponent.view(-1, *(1 for _ in self.shape_of_choice)))
        return drawn

    def update(self, state: LearnerState, batch: Batch) -> UpdateResult:
        assert state.target is not None
        config = self._shared
        num_updates, batch_size = batch["weight"].shape
        samples = self._with_beta(self._prepare(state, batch), state.progress)
        order = torch.arange(num_updates * batch_size).view(num_updates, batch_size)
        rate = self._learning_rate(state.num_updates) / config.learning_rate
        is_told = is_due(state, num_updates)
        first = self._log_ratios(state.network, batch) if is_told else None
        told = state.steps.take(
            state, shared_step(self._step, state.replicas), samples, order, rate
        )
        metrics = state.replicas.sum(told[:, : len(METRICS)].mean(0))
        errors = told[:, len(METRICS) :]
        before, state.num_updates = state.num_updates, state.num_updates + num_updates
        period = config.target_update_period
        if state.num_updates // period > before // period:
            follower = state.target.weights.vector.detach()
            follower.lerp_(state.weights.vector.detach(), config.target_update_rate)
        last = None if first is None else self._log_ratios(state.network, batch)
        epsilon = _set_epsilon(state, self._epsilon(state))
        self._normalize(state, batch)
        named = dict(zip(METRICS, metrics.tolist(), strict=True))
        named["epsilon"] = epsilon
        samples_trained = num_updates * batch_size * self._replay.samples_per_draw
        priorities = errors if config.prioritized else None
        ratios = None if first is None or last is None else LogRatios(first, last)
        return UpdateResult(samples_trained, named, priorities, ratios)

    def _prepare(self, state: LearnerState, batch: Batch) -> dict[str, Tensor]:
        """The samples of all updates, judged."""
        assert state.target is not None
        samples = self._samples(batch)
        return {**samples, **state.preparing.run(state.target, self.judge, samples)}

    def _samples(self, batch: Batch) -> dict[str, Tensor]:
        """What the loss reads of the samples of all updates, [updates x batch size, ...]."""
        return merged(batch)

    def _with_beta(self, samples: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
        """Weights with the exponent beta of a schedule. The largest of a draw is 1, also then."""
        config = self._shared
        if config.importance_exponent_final is None:
            return samples
        beta = linear(config.importance_exponent, config.importance_exponent_final, progress)
        return samples | {"weight": samples["weight"].pow(beta)}

    def _epsilon(self, state: LearnerState) -> float:
        config = self._shared
        initial, final = config.epsilon_initial, config.epsilon_final
        if (fraction := config.epsilon_decay_fraction) is not None:
            return linear(initial, final, min(state.progress / fraction, 1.0))
        return self._falling(initial, final, config.epsilon_decay_env_steps, state.num_updates)

    def _learning_rate(self, num_updates: int) -> float:
        config = self._shared
        final = config.learning_rate_final or config.learning_rate
        over = config.learning_rate_decay_env_steps
        return self._falling(config.learning_rate, final, over, num_updates)

    def _falling(self, initial: float, final: float, over: int, num_updates: int) -> float:
        """Linear in the env steps that correspond to this many updates."""
        samples = num_updates * self._shared.batch_size * self._replay.samples_per_draw
        env_steps = samples / self._shared.replay_ratio
        return initial + min(env_steps / max(over, 1), 1.0) * (final - initial)


def merged(batch: Batch) -> dict[str, Tensor]:
    """The samples of all updates of a batch, [updates x batch size, ...]."""
    return {
        name: values.flatten(0, 1)
        for name, values in batch.items()
        if name not in ("key", "version")
    }


def one_choice(
    action: AnySpace, whose: str = "the environment", instead: str = "ppo or impala"
) -> int:
    """Number of actions of a space with a single discrete choice.

    Raises:
        ConfigError: It is another one; says whose it is, and which algorithms to use instead.
    """
    parts = parts_of(action)
    if len(parts.nvec) == 1 and not parts.num_reals:
        return parts.nvec[0]
    raise ConfigError(
        f"Q-learning needs discrete actions, one choice in each step; {whose} has {action}",
        where="env.id",
        fix=f"use algorithm.name {instead}, or wrap the environment so that one number stands"
        " for each combination of choices",
    )


def _set_epsilon(state: LearnerState, epsilon: float) -> float:
    """Explores with this probability from now on. Returns it as it was rounded."""
    parameter = state.network.get_parameter("epsilon")
    return float(parameter.fill_(epsilon))


def _decay(config: QLearningConfig) -> int:
    """The default of `epsilon_decay_env_steps`."""
    return type(config)().epsilon_decay_env_steps
