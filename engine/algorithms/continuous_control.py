"""The common part of SAC and TD3: samples, networks, acting at the start, and the update.

Each algorithm adds how it acts (`act`, `act_greedily`) and its losses.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import gymnasium
import numpy as np
import torch
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
from engine.algorithms.step_sequence import StepSequence
from engine.errors import ConfigError
from engine.layers.flat import flatten
from engine.layers.inputs import map_leaves, observation_of
from engine.rollout import Field
from engine.spaces.action_parts import action_field, parts_of
from engine.spaces.leaves import AnySpace, leaves_of
from engine.spaces.observations import observation_fields
from engine.spec import NetworkSpec

UNREAD_BY_STEP = (
    *("learning_rate", "discount", "n_step", "replay_ratio", "replay_capacity"),
    *("min_replay_size", "updates_per_batch", "exploration_noise", "entropy_coefficient_initial"),
)
"""Hyperparameters that no optimiser step reads; discounts come with the samples."""


class ContinuousControl:
    """Learns a policy of actions within (-1, 1) by critics, from a replay store.

    A subclass makes `step`, whose losses have the metrics `metrics` one after the other.

    Args:
        name: Of the algorithm, for errors.
        replay: The samples that it draws.
        rollout_steps: T, of a rollout.
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
        replay: ReplayRequest,
        rollout_steps: int,
        network: NetworkSpec,
        spaces: Spaces,
    ) -> None:
        _check_actions(name, spaces.action)
        check_sizes(replay.min_size, replay.capacity)
        self._replay, self._rollout_steps = replay, rollout_steps
        self._spaces, self._network_spec = spaces, network
        self._num_reals = parts_of(spaces.action).num_reals

    @property
    def fields(self) -> tuple[Field, ...]:
        """The fields of a rollout."""
        return (*observation_fields(self._spaces.observation), action_field(self._spaces.action))

    def samples(self) -> SampleRequest:
        """See `Algorithm`."""
        return SampleRequest(
            rollout_steps=self._rollout_steps,
            fields=self.fields,
            replay=self._replay,
            corrects_staleness=True,
            shares_batches=True,
            acts_in_units=True,
            unread_by_act=self.unread_by_act,
            unread_by_step=UNREAD_BY_STEP,
            scheduled_parameters=("acts_uniformly",),
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
