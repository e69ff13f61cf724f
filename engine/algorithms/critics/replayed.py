"""Actors and critics that learn from a replay store: the common part of SAC, TD3 and MADDPG.

Each algorithm adds its networks, how it acts, and the losses of one step.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Annotated, TypeAlias

import torch
from msgspec import Meta
from torch import Tensor, nn

from engine.algorithms.base import (
    Batch,
    LearnerState,
    ReplayRequest,
    SampleRequest,
    TargetNetwork,
    UpdateResult,
    check_sizes,
    initial_state,
    seeded,
)
from engine.algorithms.replicas import ReplicaGroup, part_of_whole, shared_step
from engine.algorithms.step_sequence import Part, StepSequence
from engine.layers.flat import flatten
from engine.rollout import Field
from engine.spec import NonNegativeInt, PositiveFloat, PositiveInt, Spec, UnitInterval

ADAM_EPSILON = 1e-8
UNREAD_BY_STEP = (
    *("learning_rate", "discount", "n_step", "replay_ratio", "replay_capacity"),
    *("min_replay_size", "updates_per_batch", "entropy_coefficient_initial"),
    *("exploration_noise", "exploration_epsilon"),
)
"""Hyperparameters that no optimiser step reads; discounts come with the samples."""


PositiveUnit: TypeAlias = Annotated[float, Meta(gt=0.0, le=1.0)]


class ReplayedCriticsConfig(Spec, frozen=True, kw_only=True):
    """The hyperparameters that all of them have in common."""

    learning_rate: PositiveFloat = 3e-4
    """Step size of Adam, of all that learns."""
    discount: UnitInterval = 0.99
    """Gamma: how much a reward one step later counts."""
    num_critics: PositiveInt = 2
    """Critics; the least of their values is used."""
    batch_size: PositiveInt = 256
    """Transitions of an update of the critics."""
    updates_per_batch: PositiveInt = 16
    """Updates of the critics for each message from the replay buffer, and for each weights version;
    of `td3` and `ddpg` a multiple of `policy_delay`."""
    replay_ratio: PositiveFloat = 256.0
    """Samples trained for each env step collected; 256 is a batch of 256 for every env step."""
    replay_capacity: PositiveInt = 1_000_000
    """Env steps that the replay store holds; the oldest are overwritten."""
    min_replay_size: NonNegativeInt = 1_000
    """Env steps collected before training starts; until then actions are uniform in their Box."""
    target_update_rate: PositiveUnit = 0.005
    """How far the target networks move to the networks with every update of the policy."""
    max_gradient_norm: PositiveFloat | None = None
    """Longer gradients, of the critics or of all else, are scaled down to this norm; `null`: none
    are."""
    rollout_steps: PositiveInt = 8
    """Steps of each environment in one rollout."""


class ReplayedCritics:
    """Learns policies by critics, from a replay store.

    A subclass makes `step`, whose losses have the metrics `metrics` one after the other, and says
    what its networks and the fields of a rollout are.

    Args:
        config: Hyperparameters.

    Raises:
        ConfigError: Sizes that can never be satisfied.
    """

    step: StepSequence
    metrics: tuple[str, ...]
    batches_per_step: int = 1
    """Minibatches of one step of the sequence."""
    acts_in_units: bool = True
    unread_by_act: tuple[str, ...] = ()

    def __init__(self, config: ReplayedCriticsConfig) -> None:
        check_sizes(config.min_replay_size, config.replay_capacity)
        self._shared = config

    @property
    def fields(self) -> tuple[Field, ...]:
        """The fields of a rollout."""
        raise NotImplementedError

    def samples(self) -> SampleRequest:
        """See `Algorithm`."""
        return SampleRequest(
            rollout_steps=self._shared.rollout_steps,
            fields=self.fields,
            replay=self._replay,
            corrects_staleness=True,
            shares_batches=True,
            acts_in_units=self.acts_in_units,
            unread_by_act=self.unread_by_act,
            unread_by_step=UNREAD_BY_STEP,
            scheduled_parameters=("acts_uniformly",),
        )

    @property
    def n_step(self) -> int:
        """Longest span of a transition, in env steps."""
        return 1

    @property
    def _replay(self) -> ReplayRequest:
        config = self._shared
        return ReplayRequest(
            capacity=config.replay_capacity,
            min_size=config.min_replay_size,
            batch_size=config.batch_size,
            updates_per_batch=config.updates_per_batch,
            replay_ratio=config.replay_ratio,
            n_step=self.n_step,
            discount=config.discount,
            priority_exponent=0.0,
            importance_exponent=0.0,
        )

    def sequence(self, *parts: Part) -> StepSequence:
        """Steps of these parts with the hyperparameters in common."""
        config = self._shared
        return StepSequence(
            parts=parts,
            learning_rate=config.learning_rate,
            epsilon=ADAM_EPSILON,
            max_gradient_norm=config.max_gradient_norm,
            target_update_rate=config.target_update_rate,
        )

    def network(self) -> nn.Module:
        """See `Algorithm`. It has a parameter `acts_uniformly`, 1 until training starts."""
        raise NotImplementedError

    def followers(self, network: nn.Module) -> nn.Module:
        """The target network, made of the parts of a network that nothing else has."""
        raise NotImplementedError

    def init(self, seed: int) -> LearnerState:
        """See `Algorithm`."""
        state = initial_state(self.network, seed)
        target = self.followers(seeded(self.network, seed).requires_grad_(False))
        state.target = TargetNetwork(target, flatten(target))
        return state

    def update(self, state: LearnerState, batch: Batch) -> UpdateResult:
        """Optimiser steps on all minibatches of a message; see `Algorithm`."""
        num_updates, batch_size = batch["weight"].shape
        samples = {
            name: values.flatten(0, 1)
            for name, values in batch.items()
            if name not in ("key", "version", "weight")
        }
        noise = self.noise_of_losses(state, num_updates, batch_size)
        if noise is not None:
            samples["noise"] = noise.flatten(0, 1)
        order = torch.arange(num_updates * batch_size).view(-1, self.batches_per_step * batch_size)
        step = shared_step(self.step, state.replicas)
        told = state.steps.take(state, step, samples, order)
        state.num_updates += num_updates
        state.network.get_parameter("acts_uniformly").zero_()
        self.learn_statistics(state, samples)
        means = state.replicas.sum(told.mean(0)).tolist()
        return UpdateResult(num_updates * batch_size, _by_name(self.metrics, means))

    def noise_of_losses(
        self, state: LearnerState, num_updates: int, batch_size: int
    ) -> Tensor | None:
        """What losses sample actions with, float32 [updates, batch size, ...], of this learner's
        share of the samples; None if they sample none."""
        raise NotImplementedError

    def learn_statistics(self, state: LearnerState, samples: Batch) -> None:
        """Updates the network's statistics with the samples of all updates, [N, ...]."""
        raise NotImplementedError


def share_of(
    loss: Tensor, metrics: Sequence[Tensor], replicas: ReplicaGroup
) -> tuple[Tensor, Tensor]:
    """A loss and its metrics, means over these samples, as their share of all learners'."""
    told = torch.stack([metric.detach() for metric in metrics])
    if replicas.count == 1:
        return loss, told
    part = part_of_whole(replicas)
    return loss * part, told * part


def _by_name(names: Sequence[str], values: Sequence[float]) -> dict[str, float]:
    """The mean of all values with the same name."""
    found: dict[str, list[float]] = defaultdict(list)
    for name, value in zip(names, values, strict=True):
        found[name].append(value)
    return {name: sum(numbers) / len(numbers) for name, numbers in found.items()}
