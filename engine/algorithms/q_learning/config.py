"""The hyperparameters of Q-learning."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from msgspec import Meta

from engine.spec import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Spec,
    UnitInterval,
)

PositiveUnit: TypeAlias = Annotated[float, Meta(gt=0.0, le=1.0)]

UNREAD_BY_STEP = (
    *("learning_rate", "learning_rate_final", "learning_rate_decay_env_steps"),
    *("discount", "n_step", "replay_ratio", "replay_capacity", "min_replay_size"),
    *("prioritized", "priority_exponent", "initial_priorities"),
    *("importance_exponent", "importance_exponent_final"),
    *("target_update_period", "target_update_rate"),
    *("epsilon_initial", "epsilon_final", "epsilon_spread"),
    *("epsilon_decay_env_steps", "epsilon_decay_fraction"),
)
"""Hyperparameters that no gradient step reads; discounts come with the samples."""
UNREAD_BY_PREPARING = (*UNREAD_BY_STEP, "loss", "double", "adam_epsilon", "max_gradient_norm")
"""Those that the values of the target network do not depend on."""


class QLearningConfig(Spec, frozen=True, kw_only=True):
    """The hyperparameters that all Q-learning has in common."""

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
