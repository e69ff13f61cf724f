"""What an algorithm is: how it acts, how it learns, and how it wants its samples.

An algorithm never learns whether it is distributed. Roles call it, a distribution policy decides
which roles share a process. All mutable state is in `LearnerState`, passed in and out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias, TypeVar

import gymnasium
import msgspec
import torch
from torch import Tensor, nn

from engine.algorithms.flat import FlatParameters, flatten
from engine.algorithms.gradient import EagerSteps, StepTaker
from engine.algorithms.optimizer import AdamState
from engine.algorithms.peers import ALONE, Peers
from engine.rollout import Field
from engine.spec import NetworkSpec, Spec

Batch: TypeAlias = Mapping[str, Tensor]
"""Arrays by name. From a queue: rollout fields [T(+1), B, ...], where B counts the environments of
all rollouts in it. From replay: `SampleRequest.sample_fields`, [updates, batch size, ...]."""

Metrics: TypeAlias = dict[str, float]

NetworkT = TypeVar("NetworkT", bound=nn.Module)


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


class ReplayRequest(msgspec.Struct, frozen=True, kw_only=True):
    """How an algorithm wants samples from a replay store.

    Attributes:
        capacity: Env steps kept, rounded up to whole rollouts; the oldest give way.
        min_size: Env steps before the first sample is drawn.
        batch_size: Samples of one optimiser step.
        updates_per_batch: Optimiser steps that one `update` makes, each on its own samples.
        replay_ratio: Samples trained for each env step collected.
        n_step: Longest span of a transition.
        discount: Gamma.
        priority_exponent: Alpha of prioritised sampling; 0 draws uniformly.
        importance_exponent: Beta, how far weights undo the bias of prioritised sampling.
        value_fields: Names of the rollout fields that hold q(s_t, a_t) and max_a q(s_t, a) as the
            actor saw them, to begin priorities with; None begins with the largest so far.
    """

    capacity: int
    min_size: int
    batch_size: int
    updates_per_batch: int
    replay_ratio: float
    n_step: int
    discount: float
    priority_exponent: float
    importance_exponent: float
    value_fields: tuple[str, str] | None = None


class SampleRequest(msgspec.Struct, frozen=True, kw_only=True):
    """How an algorithm wants its samples.

    Attributes:
        rollout_steps: T, steps of each environment in one rollout.
        fields: What a rollout holds.
        batch_steps: T x B of one batch: env steps and resets that one `update` sees (queue).
        replay: Set if samples are wanted from a replay store; then `update` may see them often.
        corrects_staleness: Whether the update learns rightly from samples of older policies, so
            that it can do without a bound on lag: by weighing them, as V-trace does, or because it
            does not ask which policy acted, as Q-learning.
        shares_batches: Whether the update sums over `LearnerState.peers` wherever it sums over the
            batch, so that several learners can take one update together.
        unread_by_act, unread_by_step: Hyperparameters that `act`, or a gradient step, does not read
            but through shapes: runs that differ in them alone share what was compiled. The
            learning rate is one, as a compiled step is told it.
    """

    rollout_steps: int
    fields: tuple[Field, ...]
    batch_steps: int = 0
    replay: ReplayRequest | None = None
    corrects_staleness: bool = False
    shares_batches: bool = False
    unread_by_act: tuple[str, ...] = ()
    unread_by_step: tuple[str, ...] = ()

    @property
    def kind(self) -> Literal["queue", "replay"]:
        return "replay" if self.replay else "queue"

    @property
    def samples_queue(self) -> bool:
        """Whether `update` learns from each rollout once."""
        return self.replay is None

    @property
    def samples_replay(self) -> bool:
        """Whether `update` learns from a replay store."""
        return self.replay is not None

    @property
    def sample_fields(self) -> tuple[Field, ...]:
        """What one sample from replay holds: a transition s_tm1, a_tm1, r_t, discount_t, s_t.

        `key` names the transition for its priority, `version` is the behaviour version, `weight`
        the importance weight.
        """
        if self.replay is None:
            return ()
        unused = self.replay.value_fields or ()
        observation, *others = (
            msgspec.structs.replace(f, extra_rows=0) for f in self.fields if f.name not in unused
        )
        return (
            observation,
            msgspec.structs.replace(observation, name="next_observation"),
            *others,
            Field("reward", "float32"),
            Field("discount", "float32"),
            Field("weight", "float32"),
            Field("key", "int64"),
            Field("version", "int64"),
        )


@dataclass
class LearnerState:
    """Everything that changes while learning; a checkpoint is exactly this, less `steps`.

    Attributes:
        network: Its parameters are views on `weights`.
        weights: All parameters and gradients, flat.
        optimizer: Moments, flat.
        generator: Source of the learner's randomness.
        num_updates: Optimiser steps so far.
        peers: The learners that hold the other shares of each batch.
        target: A second network that follows slowly, and its flat weights, if there is one.
        steps: Takes the optimiser's steps; eagerly, unless the runtime has compiled them.
    """

    network: nn.Module
    weights: FlatParameters
    optimizer: AdamState
    generator: torch.Generator
    num_updates: int = 0
    peers: Peers = ALONE
    target: TargetNetwork | None = None
    steps: StepTaker = field(default_factory=EagerSteps, repr=False)


@dataclass(frozen=True)
class TargetNetwork:
    """Parameters that are views on `weights`, as in `LearnerState`."""

    network: nn.Module
    weights: FlatParameters


@dataclass(frozen=True)
class UpdateResult:
    """What an update says of itself.

    Attributes:
        samples_trained: Env steps used, each as often as it was used.
        metrics: Scalars worth tracing.
        errors: Absolute TD errors [updates, batch size] of samples from replay, which become
            their priorities; None leaves those alone.
    """

    samples_trained: int
    metrics: Metrics
    errors: Tensor | None = None


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

    def noise(self, generator: torch.Generator, num_steps: int, lanes: Lanes) -> Tensor:
        """All randomness that acting for a rollout needs, drawn at once.

        Args:
            generator: Source of randomness; the noise is on its device.
            num_steps: T.
            lanes: Which B environments these are, for exploration that differs between them.

        Returns:
            Float32 [T, B, ...].
        """
        ...

    def act(self, network: nn.Module, observation: Tensor, noise: Tensor) -> dict[str, Tensor]:
        """Chooses actions, without gradients: a pure function, so that it can be compiled.

        Args:
            network: As from `network()`.
            observation: s_t, [B, ...].
            noise: Of this step, [B, ...], a row of what `noise` gives.

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


def initial_state(make_network: Callable[[], nn.Module], seed: int) -> LearnerState:
    """The state that learning begins with: parameters drawn from `seed`, an optimiser at rest."""
    network = seeded(make_network, seed)
    weights = flatten(network)
    generator = torch.Generator().manual_seed(seed)
    return LearnerState(network, weights, AdamState.zeros(weights), generator)


def seeded(make_network: Callable[[], NetworkT], seed: int) -> NetworkT:
    """A network with the initial parameters of this seed; torch's own generator stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make_network()


ConfigT = TypeVar("ConfigT", bound=Spec, contravariant=True)


class AlgorithmFactory(Protocol[ConfigT]):
    """Makes an algorithm.

    Raises:
        ConfigError: Spaces or hyperparameters do not suit the algorithm.
    """

    def __call__(self, config: ConfigT, network: NetworkSpec, spaces: Spaces) -> Algorithm: ...
