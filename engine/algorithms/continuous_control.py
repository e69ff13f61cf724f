"""The common part of SAC and TD3: samples, networks, acting at the start, and the update.

Each algorithm adds how it acts (`act`, `act_greedily`) and its losses.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Annotated, TypeAlias

import gymnasium
import numpy as np
import torch
from msgspec import Meta
from torch import Tensor

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
from engine.algorithms.q_network import PolicyCriticsNetwork, TargetNetworkOfCritics
from engine.algorithms.replicas import ReplicaGroup, columns_of, part_of_whole, shared_step
from engine.algorithms.step_sequence import Part, StepSequence
from engine.errors import ConfigError
from engine.layers.flat import flatten
from engine.layers.inputs import map_leaves, observation_of
from engine.rollout import Field
from engine.spaces.action_parts import action_field, parts_of
from engine.spaces.leaves import AnySpace, leaves_of
from engine.spaces.observations import observation_fields
from engine.spec import NetworkSpec, NonNegativeInt, PositiveFloat, PositiveInt, Spec, UnitInterval

ADAM_EPSILON = 1e-8
UNREAD_BY_STEP = (
    *("learning_rate", "discount", "n_step", "replay_ratio", "replay_capacity"),
    *("min_replay_size", "updates_per_batch", "exploration_noise", "entropy_coefficient_initial"),
)
"""Hyperparameters that no optimiser step reads; discounts come with the samples."""


PositiveUnit: TypeAlias = Annotated[float, Meta(gt=0.0, le=1.0)]


class ContinuousControlConfig(Spec, frozen=True, kw_only=True):
    """The hyperparameters that SAC and TD3 have in common."""

    learning_rate: PositiveFloat = 3e-4
    """Step size of Adam, of all that learns."""
    discount: UnitInterval = 0.99
    """Gamma: how much a reward one step later counts."""
    num_critics: PositiveInt = 2
    """Critics; the least of their values is used."""
    n_step: PositiveInt = 1
    """Rewards that are added up before the value of a later state takes over, in env steps."""
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


class ContinuousControl:
    """Learns a policy of actions within (-1, 1) by critics, from a replay store.

    A subclass makes `step`, whose losses have the metrics `metrics` one after the other.

    Args:
        name: Of the algorithm, for errors.
        config: Hyperparameters.
        network: Encoders and trunk.
        spaces: Of one environment.

    Raises:
        ConfigError: Actions are not reals with two bounds, or sizes that can never be satisfied.
    """

    step: StepSequence
    metrics: tuple[str, ...]
    batches_per_step: int = 1
    """Minibatches of one step of the sequence."""
    has_target_policy: bool = False
    unread_by_act: tuple[str, ...] = ()

    def __init__(
        self,
        name: str,
        config: ContinuousControlConfig,
        network: NetworkSpec,
        spaces: Spaces,
    ) -> None:
        _check_actions(name, spaces.action)
        check_sizes(config.min_replay_size, config.replay_capacity)
        self._shared = config
        self._spaces, self._network_spec = spaces, network
        self._num_reals = parts_of(spaces.action).num_reals

    @property
    def fields(self) -> tuple[Field, ...]:
        """The fields of a rollout."""
        return (*observation_fields(self._spaces.observation), action_field(self._spaces.action))

    def samples(self) -> SampleRequest:
        """See `Algorithm`."""
        return SampleRequest(
            rollout_steps=self._shared.rollout_steps,
            fields=self.fields,
            replay=self._replay,
            corrects_staleness=True,
            shares_batches=True,
            acts_in_units=True,
            unread_by_act=self.unread_by_act,
            unread_by_step=UNREAD_BY_STEP,
            scheduled_parameters=("acts_uniformly",),
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

    def network(self) -> PolicyCriticsNetwork:
        """See `Algorithm`."""
        raise NotImplementedError

    def init(self, seed: int) -> LearnerState:
        """See `Algorithm`."""
        state = initial_state(self.network, seed)
        copied = seeded(self.network, seed).requires_grad_(False)
        target = TargetNetworkOfCritics(copied, has_policy=self.has_target_policy)
        state.target = TargetNetwork(target, flatten(target))
        return state

    def noise(self, generator: torch.Generator, num_steps: int, env_slice: EnvSlice) -> Tensor:
        """Standard normal, float32 [T, B, D]; see `Algorithm`."""
        shape = (num_steps, env_slice.count, self._num_reals)
        return torch.randn(shape, generator=generator, device=generator.device)

    def explored(self, network: PolicyCriticsNetwork, chosen: Tensor, noise: Tensor) -> Tensor:
        """Actions [B, D] of the policy, or before training starts, uniform in (-1, 1): that is the
        distribution of erf(z / sqrt(2)) if z is standard normal."""
        return torch.where(network.acts_uniformly > 0, torch.erf(noise * 0.5**0.5), chosen)

    def update(self, state: LearnerState, batch: Batch) -> UpdateResult:
        """Optimiser steps on all minibatches of a message; see `Algorithm`."""
        network = state.network
        assert isinstance(network, PolicyCriticsNetwork)
        num_updates, batch_size = batch["weight"].shape
        samples = {
            name: values.flatten(0, 1)
            for name, values in batch.items()
            if name not in ("key", "version", "weight")
        }
        samples["noise"] = self._noise(state, num_updates, batch_size).flatten(0, 1)
        order = torch.arange(num_updates * batch_size).view(-1, self.batches_per_step * batch_size)
        step = shared_step(self.step, state.replicas)
        told = state.steps.take(state, step, samples, order)
        state.num_updates += num_updates
        network.acts_uniformly.zero_()
        if network.input.normalizes:
            observation = map_leaves(lambda leaf: leaf.flatten(0, 1), observation_of(batch))
            network.input.learn(observation, state.replicas)
        means = state.replicas.sum(told.mean(0)).tolist()
        return UpdateResult(num_updates * batch_size, _by_name(self.metrics, means))

    def _noise(self, state: LearnerState, num_updates: int, batch_size: int) -> Tensor:
        """Noise of the actions that losses sample in s_t and s_tm1: standard normal, float32
        [updates, batch size, 2, D], of this learner's share of the samples."""
        first, num_all = columns_of(state.replicas, batch_size)
        shape = (num_updates, num_all, 2, self._num_reals)
        drawn = torch.randn(shape, generator=state.generator)
        return drawn[:, first : first + batch_size].to(state.weights.vector.device)


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


def _check_actions(name: str, action: AnySpace) -> None:
    """Raises ConfigError unless every leaf is a Box with two bounds."""
    leaves = [leaf.space for leaf in leaves_of(action, "action")]
    if not all(isinstance(leaf, gymnasium.spaces.Box) for leaf in leaves):
        raise ConfigError(
            f"{name} needs continuous actions; the environment has {action}",
            where="env.id",
            fix="use algorithm.name dqn for one discrete choice, or ppo or impala for any actions",
        )
    for leaf in leaves:
        assert isinstance(leaf, gymnasium.spaces.Box)
        if not (np.all(leaf.bounded_below) and np.all(leaf.bounded_above)):
            raise ConfigError(
                f"{name} needs actions with two bounds; the environment has {action}",
                where="env.id",
                fix="use algorithm.name ppo or impala, or a wrapper such as RescaleAction",
            )
