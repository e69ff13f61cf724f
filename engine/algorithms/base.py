"""The contract of an algorithm: how it acts, how it learns, and which samples it needs.

An algorithm does not know whether it is distributed. Roles call it; a distribution policy decides
which roles share a process. All mutable state is in `LearnerState`, which is passed to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias, TypeVar

import msgspec
import torch
from torch import Tensor, nn

from engine.algorithms.gradient import EagerSteps, StepTaker
from engine.algorithms.off_policy.ratios import LogRatios
from engine.algorithms.optimizer import AdamState
from engine.algorithms.replicas import SINGLE_REPLICA, ReplicaGroup
from engine.algorithms.returns import EagerPreparing, Preparing
from engine.errors import ConfigError
from engine.layers.flat import FlatParameters, flatten
from engine.layers.inputs import STATE, Inputs
from engine.rollout import NEXT, Field
from engine.spaces.leaves import AnySpace
from engine.spaces.observations import MASK
from engine.spaces.team import Team
from engine.spec import NetworkSpec, Spec

Batch: TypeAlias = Mapping[str, Tensor]
"""Tensors by field name, with the dtypes of the fields.

From a queue: `SampleRequest.fields`, float32 `reward` and bool `terminated`, `truncated` and
`valid`, each [T, B, ...] (the observation [T + 1, B, ...]), where B counts the environments of all
rollouts in the batch. An observation of several leaves is one tensor for each,
`observation.NAME`; with action masks there is `action_mask`, bool [T + 1, B, choices]. From replay:
`SampleRequest.sample_fields`, [updates, batch size, ...].

`version`, int64 in main memory, is the behaviour version of samples from replay; of rollouts, with
`SampleRequest.needs_versions`, [B], that of their oldest steps."""

Metrics: TypeAlias = dict[str, float]

NetworkT = TypeVar("NetworkT", bound=nn.Module)


@dataclass(frozen=True)
class Spaces:
    """The spaces of one environment, not of the vector.

    Attributes:
        observation: What is observed, without an action mask beside it.
        action: As the environment declares it.
        has_action_mask: Whether each observation comes with a mask of valid choices.
        team: The agents, if there are several; None of an environment for one agent.
    """

    observation: AnySpace
    action: AnySpace
    has_action_mask: bool = False
    team: Team | None = None


class EnvSlice(msgspec.Struct, frozen=True):
    """A contiguous range of the run's environments, for exploration that differs between them.

    Attributes:
        first: Number of the first environment.
        count: B, the number of environments.
        total: Number of environments of all actors.
    """

    first: int
    count: int
    total: int


class SequenceRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request for sequences instead of transitions, for networks with memory (Kapturowski et
    al., 2019): a sample is everything that one environment did in one rollout.

    The rollout must have a field `state`, without `extra_rows`: the memory before each step.

    Attributes:
        num_steps: T, of a rollout.
        burn_in_steps: At most T. Rows that come before the sequence, from the previous rollout of
            the same environment: unrolling over them makes a state that fits newer weights.
        priority_mix: Eta. The priority of a sequence is eta times the largest error of its steps
            plus (1 - eta) times their mean.
    """

    num_steps: int
    burn_in_steps: int = 0
    priority_mix: float = 0.9


class ReplayRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The samples that an algorithm draws from a replay store.

    Attributes:
        capacity: Env steps stored, rounded up to whole rollouts; the oldest are overwritten.
        min_size: Env steps collected before the first sample is drawn.
        batch_size: Transitions, or sequences, of one optimiser step.
        updates_per_batch: Optimiser steps that one `update` makes, each on its own samples.
        replay_ratio: Samples trained per env step collected.
        n_step: Longest span of a transition, in env steps.
        discount: Gamma.
        priority_exponent: Alpha of prioritised sampling; 0 draws uniformly.
        importance_exponent: Beta, how far weights correct the bias of prioritised sampling.
        value_fields: Names of the rollout fields with the actor's q(s_t, a_t) and max_a q(s_t, a),
            from which initial priorities are computed; None: the largest priority so far.
        sequence: Draws sequences instead of transitions; each counts as T samples.
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
    sequence: SequenceRequest | None = None

    @property
    def samples_per_draw(self) -> int:
        """Samples that a drawn transition or sequence counts for."""
        return 1 if self.sequence is None else self.sequence.num_steps

    @property
    def samples_per_batch(self) -> int:
        """Samples of one `update`."""
        return self.updates_per_batch * self.batch_size * self.samples_per_draw


def check_sizes(min_size: int, capacity: int) -> None:
    """Raises ConfigError if a replay store can never hold what training waits for; in env steps."""
    if min_size > capacity:
        raise ConfigError(
            f"{min_size} env steps never fit into {capacity}",
            where="algorithm.min_replay_size",
            fix="make it at most algorithm.replay_capacity",
        )


class SampleRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The samples that an algorithm needs.

    Attributes:
        rollout_steps: T, steps of each environment in one rollout.
        fields: The arrays of a rollout, beside reward and episode ends.
        batch_steps: T x B of one batch: env steps and resets that one `update` sees (queue).
        replay: Set if samples come from a replay store; `update` can then see a sample repeatedly.
        corrects_staleness: Whether the update corrects for off-policy samples, so that it needs no
            bound on lag: by importance weights, as V-trace does, or because it does not depend on
            the behaviour policy, as Q-learning.
        needs_versions: Whether a batch of rollouts comes with `version`; see `Batch`.
        corrections: Hyperparameters with which it would do so, if it can and does not.
        shares_batches: Whether the update sums over `LearnerState.replicas` wherever it sums over
            the batch, so that several learners can make one update together.
        trains_apart: Whether each policy of a team can have a learner of its own. Its parameters
            are then those of the module `policies.NAME` of the network, which has no others, and
            the update changes only those of `TeamView.policies`.
        acts_in_units: Whether its reals are within [-1, 1], from an entry's lowest value to its
            highest, so that they need neither squashing nor another scale.
        unread_by_act, unread_by_step: Hyperparameters that `act`, or a gradient step, reads only
            through shapes: runs that differ only in them share compiled code. The learning rate is
            one, since it is an argument of a compiled step.
        unread_by_preparing: The same of what the update lets `LearnerState.preparing` compute;
            None if it lets it compute nothing.
        follows_progress: Hyperparameters of this experiment that are schedules over
            `LearnerState.progress`, so that they need `stop.env_steps`.
        scheduled_parameters: Names of the network's parameters that the update sets as a function
            of its progress, such as an exploration rate: a run that starts with the weights of
            another one does not take these.
    """

    rollout_steps: int
    fields: tuple[Field, ...]
    batch_steps: int = 0
    replay: ReplayRequest | None = None
    corrects_staleness: bool = False
    needs_versions: bool = False
    corrections: tuple[str, ...] = ()
    shares_batches: bool = False
    trains_apart: bool = False
    acts_in_units: bool = False
    unread_by_act: tuple[str, ...] = ()
    unread_by_step: tuple[str, ...] = ()
    unread_by_preparing: tuple[str, ...] | None = None
    follows_progress: tuple[str, ...] = ()
    scheduled_parameters: tuple[str, ...] = ()

    @property
    def kind(self) -> Literal["queue", "replay"]:
        return "replay" if self.replay else "queue"

    @property
    def corrections_in_words(self) -> str:
        """`corrections`, as they are set on the command line."""
        return " or ".join(f"algorithm.{setting}" for setting in self.corrections)

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
        """The arrays of one sample from replay. Empty without `replay`.

        Of a transition: s_tm1, a_tm1, r_t, discount_t, s_t. Every field with a row for s_T, such
        as the observation, is there at s_tm1, and as `next_...` at s_t; of the action mask only
        the latter.

        Of a sequence: each field of the rollout has the axis of time first in its shape, with
        burn_in_steps + T rows, and one more where there is a row for s_T; `state` is that before
        the first row of the burn-in, or before the first step if `has_burn_in` is False, whose
        rows then mean nothing. `reward`, `discount` and `span`, [T], are those of the n-step
        transition that begins at each step, which ends `span` rows later; a span of 0 is a step
        that only reset its environment.

        `key` identifies the sample for its priority, `version` is the behaviour version and
        `weight` the importance weight.
        """
        if self.replay is None:
            return ()
        unused = self.replay.value_fields or ()
        used = tuple(item for item in self.fields if item.name not in unused)
        sequence = self.replay.sequence
        fields = _of_transition(used) if sequence is None else _of_sequence(used, sequence)
        return (
            *fields,
            Field("weight", "float32"),
            Field("key", "int64"),
            Field("version", "int64"),
        )


def _of_transition(fields: tuple[Field, ...]) -> tuple[Field, ...]:
    of_states = [msgspec.structs.replace(item, extra_rows=0) for item in fields if item.extra_rows]
    return (
        *(item for item in of_states if item.name != MASK),
        *(msgspec.structs.replace(item, name=NEXT + item.name) for item in of_states),
        *(item for item in fields if not item.extra_rows),
        Field("reward", "float32"),
        Field("discount", "float32"),
    )


def _of_sequence(fields: tuple[Field, ...], sequence: SequenceRequest) -> tuple[Field, ...]:
    num_steps = sequence.num_steps
    num_rows = sequence.burn_in_steps + num_steps
    return (
        *(
            Field(item.name, item.dtype, (num_rows + item.extra_rows, *item.shape))
            for item in (*fields, Field("valid", "bool"))
            if item.name != STATE
        ),
        *(item for item in fields if item.name == STATE),
        Field("has_burn_in", "bool"),
        Field("reward", "float32", (num_steps,)),
        Field("discount", "float32", (num_steps,)),
        Field("span", "int64", (num_steps,)),
    )


@dataclass
class LearnerState:
    """Everything that changes during training. A checkpoint is exactly this, without `progress`,
    `version`, `num_diagnosed` and `steps`.

    Attributes:
        network: Its parameters are views on `weights`.
        weights: All parameters and gradients, each one float32 vector.
        optimizer: Moments, each one float32 vector.
        generator: Source of the learner's randomness.
        num_updates: Optimiser steps so far.
        progress: Share of `stop.env_steps` that all learners have consumed when an update starts,
            in [0, 1]; 0 without that rule. The runtime sets it; a checkpoint does not hold it.
        version: Of the weights when an update starts; the runtime sets it, too.
        num_diagnosed: Updates of this process with `UpdateResult.ratios`; the runtime counts them.
        replicas: The learners that have the other shares of each batch.
        target: The target network, which follows slowly, and its flat weights; None without one.
            It has the parameters of the network, or those of some of its modules.
        steps: Makes optimiser steps, in eager mode unless the runtime has compiled them.
        preparing: Computes what comes before them, in the same way.
    """

    network: nn.Module
    weights: FlatParameters
    optimizer: AdamState
    generator: torch.Generator
    num_updates: int = 0
    progress: float = 0.0
    version: int = 0
    num_diagnosed: int = 0
    replicas: ReplicaGroup = SINGLE_REPLICA
    target: TargetNetwork | None = None
    steps: StepTaker = field(default_factory=EagerSteps, repr=False)
    preparing: Preparing = field(default_factory=EagerPreparing, repr=False)


@dataclass(frozen=True)
class TargetNetwork:
    """Parameters that are views on `weights`, as in `LearnerState`."""

    network: nn.Module
    weights: FlatParameters


@dataclass(frozen=True)
class UpdateResult:
    """The result of one update.

    Attributes:
        samples_trained: Env steps trained on, counted once per use.
        metrics: Scalars for the trace, such as losses.
        errors: Absolute TD errors of samples from replay, float32 [updates, batch size], which
            become their priorities; of a sequence, one for all of it. None leaves the priorities
            unchanged.
        ratios: Importance ratios of the samples; None if it does not report any.
    """

    samples_trained: int
    metrics: Metrics
    errors: Tensor | None = None
    ratios: LogRatios | None = field(default=None, compare=False, repr=False)


class Algorithm(Protocol):
    """One reinforcement-learning algorithm for one pair of spaces."""

    def samples(self) -> SampleRequest:
        """Declares the samples that the algorithm needs."""
        ...

    def network(self) -> nn.Module:
        """A new network for actors and learner; its parameters are float32 and finite."""
        ...

    def init(self, seed: int) -> LearnerState:
        """The initial state: parameters and optimiser. Equal seeds give equal states."""
        ...

    def noise(self, generator: torch.Generator, num_steps: int, env_slice: EnvSlice) -> Tensor:
        """Draws all randomness that acting needs for one rollout.

        Args:
            generator: Source of randomness; the noise is on its device.
            num_steps: T.
            env_slice: The B environments of the actor, for exploration that differs between them.

        Returns:
            Float32 [T, B, ...].
        """
        ...

    def act(self, network: nn.Module, inputs: Inputs, noise: Tensor) -> dict[str, Tensor]:
        """Chooses actions, without gradients. A pure function, so that it can be compiled.

        Args:
            network: As returned by `network()`.
            inputs: s_t, [B, ...], with the dtype of its field, if that is all there is; otherwise
                by field name each leaf of s_t, `action_mask` bool [B, choices] and `state`
                float32 [B, S], the memory before this step.
            noise: Noise of this step, float32 [B, ...], one row of the result of `noise`.

        Returns:
            By field name: `action` [B, ...] and every other array of the step that the update
            needs, with the shapes and dtypes that `samples().fields` declares; with a memory also
            `state`, after this step.
        """
        ...

    def act_greedily(self, network: nn.Module, inputs: Inputs) -> Tensor | Mapping[str, Tensor]:
        """Chooses the best known actions for evaluation, without gradients.

        Args:
            network: As returned by `network()`.
            inputs: As in `act`.

        Returns:
            Actions [B, ...], with the dtype of the field `action`; with a memory, `action` and
            `state` by name.
        """
        ...

    def update(self, state: LearnerState, batch: Batch) -> UpdateResult:
        """Trains on one batch, in place on `state`.

        Args:
            state: Parameters, optimiser and random generator; changed by the update.
            batch: As `Batch` says; its tensors can be in shared memory; do not modify them.

        Returns:
            Samples trained, metrics and, for samples from replay, TD errors.
        """
        ...


def initial_state(make_network: Callable[[], nn.Module], seed: int) -> LearnerState:
    """The state at the start of training: parameters drawn from `seed`, zero moments."""
    network = seeded(make_network, seed)
    weights = flatten(network)
    generator = torch.Generator().manual_seed(seed)
    return LearnerState(network, weights, AdamState.zeros(weights), generator)


def seeded(make_network: Callable[[], NetworkT], seed: int) -> NetworkT:
    """A network with the initial parameters of this seed; torch's global generator is unchanged."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make_network()


ConfigT = TypeVar("ConfigT", bound=Spec, contravariant=True)


class AlgorithmFactory(Protocol[ConfigT]):
    """Makes an algorithm from its hyperparameters, the network's settings and one pair of spaces.

    Raises:
        ConfigError: The algorithm does not support these spaces or hyperparameters.
    """

    def __call__(self, config: ConfigT, network: NetworkSpec, spaces: Spaces) -> Algorithm: ...
