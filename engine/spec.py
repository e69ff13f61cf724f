"""The experiment as typed, frozen data. No torch here: a command line must be able to read it fast.

Every field of every `Struct` below is a key of `experiments/*.yaml` and can be set with
`-s section.key=value`. Hyperparameters live with their algorithm (`engine/algorithms/<name>.py`)
and are checked by `engine.algorithms.registry` once that module may be imported.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

from engine.errors import ConfigError

Scalar: TypeAlias = bool | int | float | str | None
PositiveInt: TypeAlias = Annotated[int, Meta(ge=1)]
NonNegativeInt: TypeAlias = Annotated[int, Meta(ge=0)]
MAX_REPLICAS = 10_000
MIN_QUEUED_ROLLOUTS = 64
"""Of one role, in one run: more than anybody has cores, and less than a plan needs minutes for."""
MAX_FLOAT = 1e300
"""Bounds what is called finite: infinity is nobody's intention in a configuration."""
NonNegativeFloat: TypeAlias = Annotated[float, Meta(ge=0.0, le=MAX_FLOAT)]
PositiveFloat: TypeAlias = Annotated[float, Meta(gt=0.0, le=MAX_FLOAT)]
Seed: TypeAlias = Annotated[int, Meta(ge=0, le=2**63 - 1)]
UnitInterval: TypeAlias = Annotated[float, Meta(ge=0.0, le=1.0)]


class Spec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every configuration section: immutable, keyword-only, strict about keys."""


class EnvSpec(Spec, frozen=True, kw_only=True):
    """Which environment, and how many copies of it one actor steps together."""

    id: str
    """A registered Gymnasium id; `module:id` imports a module first."""
    num_envs: PositiveInt = 8
    """Environments per actor (the rollout's batch axis B)."""
    num_splits: PositiveInt = 1
    """Parts of them that step by turns, each in a thread of its own while actions are chosen for
    another; 2 is double buffering. For slow environments that leave Python's lock alone."""
    step_latency_ms: NonNegativeFloat = 0.0
    """Emulated time that one vector step takes beside its computation."""
    reward_scale: PositiveFloat = 1.0
    """Rewards are multiplied by this before they are learnt from; traced returns are not."""
    clip_reward: bool = False
    """Learn from the sign of rewards only (Mnih et al., 2015); traced returns are not clipped."""
    life_loss_terminates: bool = False
    """Atari: learn as if a lost life ended the episode; the game itself goes on."""
    kwargs: dict[str, Scalar] = {}
    """Passed to the environment's constructor."""

    @property
    def columns(self) -> list[slice]:
        """Which environments each split has, along a rollout's axis B."""
        size = self.num_envs // self.num_splits
        return [slice(first, first + size) for first in range(0, self.num_envs, size)]

    @property
    def module(self) -> str | None:
        """`corridor` of `corridor:Corridor-v0`: imported before the environment is made."""
        module, colon, _ = self.id.partition(":")
        return module if colon else None

    @property
    def registered_id(self) -> str:
        """`Corridor-v0` of `corridor:Corridor-v0`."""
        return self.id.rpartition(":")[2]

    @property
    def part(self) -> EnvSpec:
        """One of the parts by itself."""
        return msgspec.structs.replace(
            self, num_envs=self.num_envs // self.num_splits, num_splits=1
        )


class NetworkSpec(Spec, frozen=True, kw_only=True):
    """Function approximator.

    `mlp`, `nature_cnn`, `impala_cnn`, `minatar_cnn`, or one that a module has registered. `mlp` has
    separate trunks for policy and value, the convolutional ones share theirs.
    """

    name: str | None = None
    """`null`: for images `nature_cnn`, or `minatar_cnn` below 36 pixels; for all else `mlp`."""
    hidden_sizes: tuple[PositiveInt, ...] = (64, 64)
    """Of `mlp`."""
    activation: Literal["tanh", "relu"] = "tanh"
    """Of `mlp`."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the trunk's arithmetic; parameters, heads and losses are float32 in any case. `bfloat16`
    is nearly twice as fast for images on processors that know it."""
    normalize_observation: bool = False
    """By running statistics that the learner keeps and that travel with the weights."""


class StalenessSpec(Spec, frozen=True, kw_only=True):
    """How old a trained sample may be, in weights versions, and what happens to older ones.

    `block`: actors wait and the learner waits for stragglers; nothing is lost.
    `drop`: the learner never waits for a straggler; what came too late is dropped and counted.
    `correct`: no bound; the algorithm weighs each sample by its importance, as V-trace does. Only
    algorithms that do so accept it.
    `unbounded`: no bound and no correction is asked for.
    Rollouts that began with the oldest weights are trained first, also without a bound; of equal
    ones, those that were admitted first.
    """

    mode: Literal["block", "drop", "correct", "unbounded"] = "block"
    max_lag: NonNegativeInt = 1
    """Of `block` and `drop`."""
    max_queued_rollouts: PositiveInt | None = None
    """Rollouts of a group admitted and not yet consumed; the memory bound of every mode. `null`:
    64 or, if that is more, one for each of its actors and a batch, so that all can collect."""

    def queue_length(self, num_actors: int, rollouts_per_batch: int) -> int:
        """That bound, for a group of so many actors."""
        if self.max_queued_rollouts is not None:
            return max(self.max_queued_rollouts, rollouts_per_batch)
        return max(MIN_QUEUED_ROLLOUTS, num_actors + rollouts_per_batch)


class ReduceSpec(Spec, frozen=True, kw_only=True):
    """How learners of several groups learn from each other, where a policy has a reducer."""

    every_updates: PositiveInt = 1
    """A learner offers its model after so many updates, if its last one was answered."""
    gain: UnitInterval = 0.5
    """Averaging: N groups move the common model by N to this times their mean progress. 0: the
    mean. 0.5: as noisy as one group. 1: all progress adds up."""
    staleness_weight: NonNegativeFloat = 0.0
    """Averaging: a model that is d versions behind the newest weighs (1 + d) to minus this."""


class EvaluationSpec(Spec, frozen=True, kw_only=True):
    """Separate episodes with the newest weights and the best known actions, in an own process."""

    episodes: PositiveInt = 20
    every_s: PositiveFloat | None = 5.0
    """At least so long between the beginnings of two evaluations; `null`: no such rule."""
    every_versions: PositiveInt | None = None
    """At least so many weights versions between two evaluations; `null`: no such rule."""
    seed: NonNegativeInt = 1_000_000
    """Of the environments: every evaluation begins from the same states."""


class StopSpec(Spec, frozen=True, kw_only=True):
    """When the run ends: as soon as one of these holds. `null` switches a rule off."""

    env_steps: PositiveInt | None = None
    """Environment steps consumed by the learner."""
    seconds: PositiveFloat | None = None
    """Wall time since training started."""
    return_threshold: float | None = None
    """Mean return of the last `return_window` finished training episodes, or of an evaluation."""
    return_window: PositiveInt = 100
    """Episodes in that mean, which must all have finished before it counts."""
    judge: Literal["training", "evaluation"] = "training"
    """Whose returns the threshold is held against."""
    sustained: PositiveInt = 1
    """The mean must hold the threshold for so many evaluations, or windows of training episodes,
    one after the other: a single noisy point does not count."""


class LearnerSpec(Spec, frozen=True, kw_only=True):
    """How the learner computes; what it computes is the algorithm's business.

    `compile`: whether optimiser steps are compiled beside training and taken into use when they are
    ready. `auto` does so where roles are processes of their own; with policy `local` only `on`
    does, because the moment of the exchange would make traces of equal seeds differ in the last
    digits.
    `threads`: of PyTorch's arithmetic. More than one pays for large networks only.
    """

    compile: Literal["auto", "on", "off"] = "auto"
    threads: PositiveInt = 1


class CheckpointSpec(Spec, frozen=True, kw_only=True):
    """When learners write what a run can go on from (`tianji up --resume`)."""

    every_s: PositiveFloat | None = 60.0
    """Time between two of them; `null`: only the one that is always written at the end."""
    keep: PositiveInt = 3
    """So many of the newest stay."""


class WatchdogSpec(Spec, frozen=True, kw_only=True):
    """What happens when processes live but do not get on; `null` switches a rule off."""

    stuck_s: PositiveFloat | None = 60.0
    """A process that has not answered for so long is reported, with its stack; it is not ended.
    One that has been slower before is given five times as long as then, at most ten times this."""
    stalled_s: PositiveFloat | None = 600.0
    """The run fails when none of its processes has done any work for so long."""


class Experiment(Spec, frozen=True, kw_only=True):
    """One run, completely described."""

    version: Literal[1] = 1
    name: str
    seed: Seed = 0
    env: EnvSpec
    algorithm: dict[str, Scalar]
    """`name`, and the hyperparameters that this algorithm knows."""
    network: NetworkSpec = NetworkSpec()
    policy: str = "tianji"
    """Distribution policy: a built-in name, or the path of a YAML file."""
    modules: tuple[str, ...] = ()
    """Python modules to import first, which register own environments, networks, algorithms."""
    actors: Annotated[int, Meta(ge=1, le=MAX_REPLICAS)] = 2
    """Over all groups."""
    groups: Annotated[int, Meta(ge=1, le=MAX_REPLICAS)] = 1
    """Compute groups: learners with a buffer and actors of their own, merged by a reducer."""
    reduce: ReduceSpec = ReduceSpec()
    staleness: StalenessSpec = StalenessSpec()
    learner: LearnerSpec = LearnerSpec()
    stop: StopSpec = StopSpec()
    evaluation: EvaluationSpec | None = None
    checkpoint: CheckpointSpec = CheckpointSpec()
    watchdog: WatchdogSpec = WatchdogSpec()
    profile: bool = False
    """Trace where the time of each role goes; `tianji up --profile` sets it."""
    restarts: NonNegativeInt = 3
    """How many times a dead actor is started again, over the whole run, before the run fails."""

    @property
    def algorithm_name(self) -> str:
        return str(self.algorithm["name"])


def check_experiment(experiment: Experiment) -> Experiment:
    """Checks what no single field can say about itself.

    Returns:
        The same experiment.

    Raises:
        ConfigError: A rule across fields is broken; `where` is the dotted key.
    """
    if not isinstance(experiment.algorithm.get("name"), str):
        raise ConfigError("an algorithm needs a name", where="algorithm.name", fix="name: ppo")
    for section, values in (
        ("algorithm", experiment.algorithm),
        ("env.kwargs", experiment.env.kwargs),
    ):
        for key, value in values.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise ConfigError(f"{value} is not a finite number", where=f"{section}.{key}")
    stop = experiment.stop
    if stop.env_steps is None and stop.seconds is None and stop.return_threshold is None:
        raise ConfigError(
            "no stop rule is left, so the run would never end",
            where="stop",
            fix="set one of stop.env_steps, stop.seconds, stop.return_threshold",
        )
    if stop.return_threshold is not None and not math.isfinite(stop.return_threshold):
        raise ConfigError(
            f"{stop.return_threshold} can never be reached or is reached at once",
            where="stop.return_threshold",
            fix="give a finite number or null",
        )
    if stop.judge == "evaluation" and experiment.evaluation is None:
        raise ConfigError(
            "stop.judge is evaluation, but there is none",
            where="stop.judge",
            fix="set evaluation.episodes, or stop.judge=training",
        )
    return experiment
