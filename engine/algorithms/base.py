"""What an algorithm is: how it acts, how it learns, and how it wants its samples.

An algorithm never learns whether it is distributed. Roles call it, a distribution policy decides
which roles share a process. All mutable state is in `LearnerState`, passed in and out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias, TypeVar

import gymnasium
import msgspec
import torch
from torch import Tensor, nn

from engine.algorithms.flat import FlatParameters
from engine.algorithms.optimizer import AdamState
from engine.algorithms.peers import ALONE, Peers
from engine.rollout import Field
from engine.spec import NetworkSpec, Spec

Batch: TypeAlias = Mapping[str, Tensor]
"""Rollout fields by name, [T(+1), B, ...]; B counts the environments of all rollouts in it."""

Metrics: TypeAlias = dict[str, float]


@dataclass(frozen=True)
class Spaces:
    """Of one environment, not of the vector."""

    observation: gymnasium.spaces.Box
    action: gymnasium.Space[object]


class Lanes(msgspec.Struct, frozen=True):
    """Which of all environments of a run these are, for exploration that differs between them.

    Attributes:
        first: Number of the first one.
        count: B, how many.
        total: Over all actors.
    """

    first: int
    count: int
    total: int


ANY_LANES = Lanes(0, 1, 1)


class SampleRequest(msgspec.Struct, frozen=True, kw_only=True):
    """How an algorithm wants its samples.

    Attributes:
        rollout_steps: T, steps of each environment in one rollout.
        batch_steps: T x B of one batch: env steps and resets that one `update` sees.
        fields: What a rollout holds.
        corrects_staleness: Whether the update weighs samples of older policies rightly, so that
            it can do without a bound on lag.
        shares_batches: Whether the update sums over `LearnerState.peers` wherever it sums over the
            batch, so that several learners can take one update together.
    """

    rollout_steps: int
    batch_steps: int
    fields: tuple[Field, ...]
    corrects_staleness: bool = False
    shares_batches: bool = False


@dataclass
class LearnerState:
    """Everything that changes while learning; a checkpoint is exactly this.

    Attributes:
        network: Its parameters are views on `weights`.
        weights: All parameters and gradients, flat.
        optimizer: Moments, flat.
        generator: Source of the learner's randomness.
        num_updates: Optimiser steps so far.
        peers: The learners that hold the other shares of each batch.
    """

    network: nn.Module
    weights: FlatParameters
    optimizer: AdamState
    generator: torch.Generator
    num_updates: int = 0
    peers: Peers = ALONE


@dataclass(frozen=True)
class UpdateResult:
    """What an update says of itself.

    Attributes:
        samples_trained: Env steps used, each as often as it was used.
        metrics: Scalars worth tracing.
    """

    samples_trained: int
    metrics: Metrics


class Algorithm(Protocol):
    """One reinforcement-learning algorithm for one pair of spaces."""

    def samples(self) -> SampleRequest:
        """States how samples are wanted."""
        ...

    def network(self) -> nn.Module:
        """A network with parameters not yet initialised for training; actors and learner alike."""
        ...

    def init(self, seed: int) -> LearnerState:
        """Initial parameters and optimiser; equal seeds give equal states."""
        ...

    def act(
        self,
        network: nn.Module,
        observation: Tensor,
        generator: torch.Generator,
        lanes: Lanes = ANY_LANES,
    ) -> dict[str, Tensor]:
        """Chooses actions, without gradients.

        Args:
            network: As from `network()`.
            observation: s_t, [B, ...].
            generator: Source of randomness.
            lanes: Which environments these are.

        Returns:
            `action` [B, ...] and whatever else of a step the update wants back, by field name.
        """
        ...

    def act_greedily(self, network: nn.Module, observation: Tensor) -> Tensor:
        """The actions that it holds to be best, [B, ...], for evaluation; without gradients."""
        ...

    def update(self, state: LearnerState, batch: Batch) -> UpdateResult:
        """Learns from one batch, in place on `state`."""
        ...


ConfigT = TypeVar("ConfigT", bound=Spec, contravariant=True)


class AlgorithmFactory(Protocol[ConfigT]):
    """Makes an algorithm.

    Raises:
        ConfigError: Spaces or hyperparameters do not suit the algorithm.
    """

    def __call__(self, config: ConfigT, network: NetworkSpec, spaces: Spaces) -> Algorithm: ...
