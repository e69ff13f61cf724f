"""The experiment as typed, frozen data. No torch here: the command line must import it fast.

Every field of every `Struct` below is a key of `experiments/*.yaml` and can be set with
`-s section.key=value`. Hyperparameters are defined with their algorithm
(`engine/algorithms/<name>.py`) and checked by `engine.algorithms.registry`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta

from engine.errors import ConfigError

Scalar: TypeAlias = bool | int | float | str | None
WrapperValue: TypeAlias = Scalar | tuple[Scalar, ...]
"""An argument of a wrapper."""
PolicySharing: TypeAlias = Literal["shared", "separate"] | dict[str, tuple[str, ...]] | None
"""Which agents act with which policy; see `Experiment.agents`."""
PositiveInt: TypeAlias = Annotated[int, Meta(ge=1)]
NonNegativeInt: TypeAlias = Annotated[int, Meta(ge=0)]
Compression: TypeAlias = Literal["auto", "on", "off"]
DeviceName: TypeAlias = Annotated[str, Meta(pattern="^(auto|cpu|cuda|cuda:[0-9]{1,3})$")]
"""Where a role computes: `cpu`, `cuda`, or `cuda:N`."""
MAX_REPLICAS = 10_000
"""Of one role in one run: more than any cluster has cores, and planned within seconds."""
MIN_QUEUED_ROLLOUTS = 64
"""Queued rollouts of a group that are always allowed."""
MAX_FLOAT = 1e300
"""The largest number of a configuration: infinity is never intended there."""
NonNegativeFloat: TypeAlias = Annotated[float, Meta(ge=0.0, le=MAX_FLOAT)]
PositiveFloat: TypeAlias = Annotated[float, Meta(gt=0.0, le=MAX_FLOAT)]
Seed: TypeAlias = Annotated[int, Meta(ge=0, le=2**63 - 1)]
UnitInterval: TypeAlias = Annotated[float, Meta(ge=0.0, le=1.0)]
AUTO: Final = "auto"
"""What a key is that is chosen by TianJi."""
LEAST_AUTO_LAG = 1
"""Where an adaptive bound on lag begins: actors collect a batch while another is trained."""
MOST_AUTO_LAG = 16
"""How far it is raised: the largest bound of the study of staleness (`experiments/staleness`)."""


PETTINGZOO = "pettingzoo"
"""What ids of its environments begin with, and the package."""


class Spec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every configuration section: immutable, keyword-only, strict about keys."""


def module_of(name: str) -> str | None:
    """`corridor` of `corridor:Corridor-v0`; None of a name without a colon."""
    module, colon, _ = name.partition(":")
    return module if colon else None


class EnvSpec(Spec, frozen=True, kw_only=True):
    """The environment, and how many copies of it one actor steps together."""

    id: str
    """A registered Gymnasium id; `module:id` imports a module first. Of several agents:
    `pettingzoo:MODULE`, such as `pettingzoo:mpe2.simple_spread_v3`; `module:function`, which makes
    an environment of PettingZoo; or an id of Gymnasium with one space for each agent."""
    num_envs: PositiveInt = 8
    """Environments per actor (the rollout's batch axis B). `auto`: as many as a short measurement
    finds worthwhile, among those that suit the batch."""
    num_splits: PositiveInt = 1
    """Groups of these environments that step in turn, each in its own thread while actions are
    chosen for another; 2 is double buffering. For slow environments that release Python's lock."""
    step_latency_ms: NonNegativeFloat = 0.0
    """Emulated latency of one vector step, added to its computation."""
    reward_scale: PositiveFloat = 1.0
    """Rewards are multiplied by this before training; traced returns are not."""
    clip_reward: bool = False
    """Train on the sign of rewards only (Mnih et al., 2015); traced returns are not clipped."""
    scale_actions: bool = True
    """What a policy chooses is in units of the range of a Box: -1 is the lowest value, 1 the
    highest. `false`: in the environment's own units; it is only clipped at the bounds."""
    squash_actions: bool = False
    """Pass tanh of what a policy chooses to entries of a Box with two bounds, instead of clipping
    it there. For every algorithm; log-probabilities are those of what was chosen."""
    life_loss_terminates: bool = False
    """Atari: train as if a lost life ended the episode; the game itself continues."""
    central_state: bool = False
    """Several agents: whether a central critic sees the environment's `state()`. Otherwise it sees
    what all agents observe, one after the other."""
    backend: Literal["gymnasium", "envpool", "torch"] = "gymnasium"
    """What steps the environments. `envpool` (extra `envpool`) does so in C++, for those of Atari,
    MuJoCo, classic control and Box2D that equal Gymnasium's; it refuses others, and wrappers.
    `torch`: actors step the version of tensors, where there is one, as those of `gpu-only` always
    do; compiled with acting, a rollout is then one call. Evaluations step Gymnasium's."""
    kwargs: dict[str, Scalar] = {}
    """Passed to the environment's constructor."""
    wrappers: tuple[dict[str, WrapperValue], ...] = ()
    """Put around each single environment, innermost first: `name`, a class of gymnasium.wrappers or
    `module:Class`, and its arguments."""

    @property
    def columns(self) -> list[slice]:
        """The environments of each split, as slices of a rollout's axis B."""
        size = self.num_envs // self.num_splits
        return [slice(first, first + size) for first in range(0, self.num_envs, size)]

    @property
    def num_threads(self) -> int:
        """Threads that step the environments of one actor, as far as the experiment says."""
        given = self.kwargs.get("num_threads", 1)
        return self.num_splits * (given if type(given) is int and given > 0 else 1)

    @property
    def named_modules(self) -> list[tuple[str, str]]:
        """Modules to import before the environment is made, and the key that names each."""
        names = [] if self.pettingzoo_module else [("env.id", self.id)]
        for number, entry in enumerate(self.wrappers):
            names.append((f"env.wrappers.{number}.name", str(entry.get("name", ""))))
        return [(module, where) for where, name in names if (module := module_of(name)) is not None]

    @property
    def pettingzoo_module(self) -> str | None:
        """`mpe2.simple_spread_v3` of `pettingzoo:mpe2.simple_spread_v3`; None of another id."""
        package, _, module = self.id.partition(":")
        return module if package == PETTINGZOO and module else None

    @property
    def registered_id(self) -> str:
        """`Corridor-v0` of `corridor:Corridor-v0`."""
        return self.id.rpartition(":")[2]

    @property
    def part(self) -> EnvSpec:
        """The spec of a single split."""
        return msgspec.structs.replace(
            self, num_envs=self.num_envs // self.num_splits, num_splits=1
        )


class CoreSpec(Spec, frozen=True, kw_only=True):
    """A recurrent layer between trunk and heads: the network then remembers within an episode."""

    name: Literal["gru", "lstm"]
    """The kind of layer."""
    size: PositiveInt
    """Units."""


class EncoderSpec(Spec, frozen=True, kw_only=True):
    """What makes features of one leaf of an observation.

    For a Box: `flatten` (as it is), `mlp`, `nature_cnn`, `impala_cnn`, `minatar_cnn`, or one that a
    module has registered. For a Discrete or MultiDiscrete: `one_hot`, or `embedding`.
    """

    name: str | None = None
    """`null`: a convolutional network for images; for other Boxes `mlp`; `one_hot` up to 64 choices
    of each entry, otherwise `embedding`."""
    hidden_sizes: tuple[PositiveInt, ...] = (64,)
    """Units of each hidden layer. Only for `mlp`."""
    size: PositiveInt = 16
    """Numbers that stand for one entry. Only for `embedding`."""
    normalize: bool | None = None
    """Normalise with running statistics; only for a Box. `null`: as `normalize_observation`."""


class NetworkSpec(Spec, frozen=True, kw_only=True):
    """The function approximator.

    `mlp`, `nature_cnn`, `impala_cnn`, `minatar_cnn`, or one that a module has registered. `mlp` has
    separate trunks for policy and value; the convolutional networks share one.
    """

    name: str | None = None
    """`null`: `nature_cnn` for images, or `minatar_cnn` below 36 pixels; otherwise `mlp`."""
    hidden_sizes: tuple[PositiveInt, ...] = (64, 64)
    """Units of each hidden layer. Only for `mlp`, also the one that follows encoders."""
    activation: Literal["tanh", "relu"] = "tanh"
    """After each hidden layer. Only for `mlp`."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the trunk's arithmetic; parameters, heads and losses are always float32. `bfloat16` is
    nearly twice as fast for images on processors that support it."""
    normalize_observation: bool = False
    """Normalise with running statistics that the learner updates and sends with the weights."""
    observation_limit: PositiveFloat | None = 10.0
    """Normalised observations are clipped to this many standard deviations from their mean;
    `null`: not at all."""
    initialization: Literal["orthogonal", "uniform"] = "orthogonal"
    """Of the layers of trunks and heads: `orthogonal` (Saxe et al., 2014) without biases, or
    `uniform`, which is PyTorch's own."""
    hidden_gain: PositiveFloat = 2**0.5
    """Factor of initial weights of hidden layers. Only for `orthogonal`, as the next two."""
    policy_gain: PositiveFloat = 0.01
    """Of the policy's output layer; small, so that initial policies are nearly uniform
    (Andrychowicz et al., 2021)."""
    value_gain: PositiveFloat = 1.0
    """Of the output layer of a value, or of action values."""
    core: CoreSpec | None = None
    """Memory, such as `{name: gru, size: 128}`; `null`: none, so that actions depend only on the
    newest observation. Policy and value share trunk and core."""
    encoders: dict[str, EncoderSpec] = {}
    """For an observation of several leaves, or one that is no Box: the encoder of a leaf, by its
    name, such as `camera` or `sensors.speed`. An `mlp` follows their concatenation."""

    def gain_of(self, layer: Literal["hidden", "policy", "value"]) -> float | None:
        """Gain of the orthogonal initialisation of a layer; None if it has another."""
        if self.initialization != "orthogonal":
            return None
        gains = {"hidden": self.hidden_gain, "policy": self.policy_gain, "value": self.value_gain}
        return gains[layer]


StalenessMode = Literal["block", "drop", "correct", "unbounded", "fixed"]


class StalenessSpec(Spec, frozen=True, kw_only=True):
    """How old a trained sample can be, in weights versions, and what happens to older ones.

    Rollouts that started with the oldest weights are trained first, also without a bound; among
    equals, those that were admitted first.
    """

    mode: StalenessMode = "block"
    """`block`: actors wait, and the learner waits for stragglers; nothing is lost. `drop`: the
    learner never waits for a straggler; late rollouts are dropped and counted. `correct`: no bound;
    the algorithm corrects for off-policy samples, as V-trace does, and only algorithms that do so
    accept it. `unbounded`: no bound, and no correction is required. `fixed`: actors and learner run
    concurrently, but which rollouts a batch has, in which order, and which weights they were
    collected with is fixed, so equal seeds give equal weights."""
    max_lag: NonNegativeInt | Literal["auto"] = 1
    """Bound on lag, in weights versions, of `block` and `drop`; other modes refuse it. `auto`: 1 at
    first, and then as large as raises throughput, from 1 to 16."""
    least_ess: UnitInterval = 0.5
    """With `max_lag: auto`: the bound is lowered while the effective sample size, as a share of the
    batch, is below this. One half is usual in sequential Monte Carlo (Doucet and Johansen, 2009).
    0: never."""
    lag: NonNegativeInt = 1
    """Lag of every batch of `fixed`, in weights versions; only the first ones, for which there are
    no weights that old, have less. Other modes refuse it."""
    max_queued_rollouts: PositiveInt | None = None
    """Rollouts of a group admitted and not yet consumed; the memory bound of every mode. `null`:
    64, or a batch and one per actor if that is more, so that all actors can collect."""

    @property
    def is_fixed(self) -> bool:
        """Whether equal seeds must give equal weights, so that nothing may depend on time."""
        return self.mode == "fixed"

    @property
    def bound_key(self) -> Literal["lag", "max_lag"] | None:
        """The field that bounds lag in this mode; None if nothing does."""
        if self.is_fixed:
            return "lag"
        return "max_lag" if self.mode in ("block", "drop") else None

    @property
    def is_adaptive(self) -> bool:
        """Whether the bound on lag moves during a run."""
        return self.bound_key == "max_lag" and self.max_lag == AUTO

    @property
    def held(self) -> StalenessSpec:
        """The same, with an adaptive bound that stays where it begins."""
        return msgspec.structs.replace(self, max_lag=LEAST_AUTO_LAG) if self.is_adaptive else self

    @property
    def bound(self) -> int | None:
        """The largest lag that a trained sample can have, in weights versions; None: any."""
        if self.bound_key is None:
            return None
        bound: int | Literal["auto"] = getattr(self, self.bound_key)
        return MOST_AUTO_LAG if bound == AUTO else bound

    @property
    def first_bound(self) -> int | None:
        """The same when a run begins."""
        return LEAST_AUTO_LAG if self.is_adaptive else self.bound

    def queue_length(self, num_actors: int, rollouts_per_batch: int) -> int:
        """The bound on queued rollouts of a group with this many actors."""
        if self.max_queued_rollouts is not None:
            return max(self.max_queued_rollouts, rollouts_per_batch)
        return max(MIN_QUEUED_ROLLOUTS, num_actors + rollouts_per_batch)


class ReduceSpec(Spec, frozen=True, kw_only=True):
    """How the models of several groups are merged, if a policy has a reducer."""

    every_updates: PositiveInt = 1
    """A learner sends its model after this many updates, if its last one was answered."""
    gain: UnitInterval = 0.5
    """Averaging: N groups move the common model by N^gain times their mean progress. 0: the
    mean. 0.5: as noisy as one group. 1: all progress adds up."""
    staleness_weight: NonNegativeFloat = 0.0
    """Averaging: a model d versions behind the newest has weight (1 + d)^-staleness_weight."""


class EvaluationSpec(Spec, frozen=True, kw_only=True):
    """Separate episodes with the newest weights and greedy actions, in a separate process."""

    episodes: PositiveInt = 20
    """Of each evaluation."""
    every_s: PositiveFloat | None = 5.0
    """Least time between the starts of two evaluations; `null`: no such rule."""
    every_versions: PositiveInt | None = None
    """Fewest weights versions between two evaluations; `null`: no such rule."""
    seed: NonNegativeInt = 1_000_000
    """Seed of the environments: every evaluation starts from the same states."""
    device: DeviceName = "auto"
    """Where it chooses actions: as `learner.device`. `auto`: on the processor."""


class StopSpec(Spec, frozen=True, kw_only=True):
    """When the run ends: as soon as one of these rules applies. `null` disables a rule."""

    env_steps: PositiveInt | None = None
    """Environment steps consumed by the learner."""
    seconds: PositiveFloat | None = None
    """Wall time since training started."""
    return_threshold: float | None = None
    """Mean return of the last `return_window` finished training episodes, or of an evaluation."""
    return_window: PositiveInt = 100
    """Episodes in that mean; the threshold is checked only once all of them have finished."""
    judge: Literal["training", "evaluation"] = "training"
    """The returns that are compared with the threshold."""
    return_of: str | None = None
    """Several agents: whose return that is, an agent's or a policy's (the sum over the agents that
    share it). `null`: the team's, the sum over all agents."""
    sustained: PositiveInt = 1
    """Consecutive evaluations, or windows of training episodes, whose mean must reach the
    threshold: a single noisy point does not count."""


class LearnerSpec(Spec, frozen=True, kw_only=True):
    """How the learner computes; the algorithm defines what it computes."""

    compile: Literal["auto", "on", "off"] = "auto"
    """Whether optimiser steps are compiled during training and used once they are ready. `auto`
    does so if roles are separate processes. With policy `local` only `on` does, because the moment
    of the switch would make traces of equal seeds differ in the last digits. With
    `staleness.mode: fixed`, training waits until they are ready, under every policy. On a GPU they
    are recorded as a graph instead, from the first update."""
    threads: PositiveInt = 1
    """Threads of PyTorch's arithmetic, and in compiled steps of large matrix products. More than
    one helps only for large networks."""
    device: DeviceName = "auto"
    """Where it trains: `cpu`, `cuda` (a GPU of its host; several learners take them in turn), or
    `cuda:N`, which counts those that the inventory gives to the run. `auto`: on GPUs if the
    inventory names `gpus` for its host, or for `gpu-only` if there are any; otherwise `cpu`."""


class ActorSpec(Spec, frozen=True, kw_only=True):
    """How actors choose actions, and how their rollouts travel."""

    device: DeviceName = "auto"
    """Where they do so: as `learner.device`. `auto`: on the learner's device if the policy chooses
    actions beside the learner for environments elsewhere, otherwise on the processor."""
    compression: Compression = "auto"
    """Whether rollouts to another host are packed, without loss. `auto`: where the link is the
    limit and packing makes them arrive sooner, which each actor measures; its log tells. `on`:
    always. `off`: never. On one host they are not sent at all."""


class CheckpointSpec(Spec, frozen=True, kw_only=True):
    """When learners write checkpoints, from which a run can resume (`tianji up --resume`)."""

    every_s: PositiveFloat | None = 60.0
    """Time between two checkpoints; `null`: only the one that is always written at the end."""
    keep: PositiveInt = 3
    """How many of the newest are kept."""
    keep_best: NonNegativeInt = 1
    """How many of those with the largest mean return are kept too. If there are evaluations, one
    that is better than all before causes a checkpoint, at most six times in `every_s`."""
    replay: bool = False
    """Whether the replay store is saved with each checkpoint of the last `keep`, so that a resumed
    run goes on with the same samples. Each may take as much disk as the store has memory."""


class WatchdogSpec(Spec, frozen=True, kw_only=True):
    """What happens when processes are alive but make no progress; `null` disables a rule."""

    stuck_s: PositiveFloat | None = 60.0
    """A process that has not answered for this long is reported, with its stack; it is not ended.
    One that was slower before gets five times its slowest answer, at most ten times this value."""
    stalled_s: PositiveFloat | None = 600.0
    """The run fails when none of its processes has done any work for this long."""


class Experiment(Spec, frozen=True, kw_only=True):
    """The complete description of one run."""

    version: Literal[1] = 1
    """Version of the file format."""
    name: str
    """Part of the run id, and shown in reports."""
    seed: Seed = 0
    """Of all randomness: initial weights, environments, exploration, minibatches."""
    env: EnvSpec
    agents: PolicySharing = None
    """Who shares a policy: `shared` by all, `separate`, or the agents of each policy by its name,
    such as `{hunters: [adversary_*], prey: [agent_0]}`. `null`: `shared`. Only for environments of
    several agents; those that share a policy need equal spaces."""
    algorithm: dict[str, Scalar]
    """`name`, and hyperparameters of that algorithm."""
    network: NetworkSpec = NetworkSpec()
    policy: str = "tianji"
    """Distribution policy: a built-in name, or the path of a YAML file."""
    init_from: Annotated[str, Meta(min_length=1)] | None = None
    """A former run whose weights this one starts with: `RUN` or its path, of the newest checkpoint;
    `RUN@best`, or `RUN@120` of that version. Weights that do not fit keep their initial values."""
    modules: tuple[str, ...] = ()
    """Python modules to import first; they register your environments, networks and algorithms."""
    actors: Annotated[int, Meta(ge=1, le=MAX_REPLICAS)] = 2
    """Number of actors over all groups. `auto`: as many as the hosts have cores for beside their
    learners and as can collect at the same time, at least one on every host."""
    groups: Annotated[int, Meta(ge=1, le=MAX_REPLICAS)] = 1
    """Compute groups: learners, each with its own buffer and actors, merged by a reducer."""
    reduce: ReduceSpec = ReduceSpec()
    staleness: StalenessSpec = StalenessSpec()
    learner: LearnerSpec = LearnerSpec()
    actor: ActorSpec = ActorSpec()
    stop: StopSpec = StopSpec()
    evaluation: EvaluationSpec | None = None
    checkpoint: CheckpointSpec = CheckpointSpec()
    watchdog: WatchdogSpec = WatchdogSpec()
    profile: bool = False
    """Trace how each role spends its time; `tianji up --profile` sets it."""
    restarts: NonNegativeInt = 3
    """How many times dead actors are restarted, over the whole run, before the run fails."""

    @property
    def algorithm_name(self) -> str:
        return str(self.algorithm["name"])

    @property
    def named_modules(self) -> list[tuple[str, str]]:
        """All modules to import first, in order, and the key that names each."""
        return [*((name, "modules") for name in self.modules), *self.env.named_modules]


def check_experiment(experiment: Experiment) -> Experiment:
    """Checks the rules that involve several fields.

    Returns:
        The same experiment.

    Raises:
        ConfigError: A rule is broken; `where` is the dotted key.
    """
    if not isinstance(experiment.algorithm.get("name"), str):
        raise ConfigError("an algorithm needs a name", where="algorithm.name", fix="name: ppo")
    for number, entry in enumerate(experiment.env.wrappers):
        if not isinstance(entry.get("name"), str):
            raise ConfigError(
                "a wrapper needs a name, which is text",
                where=f"env.wrappers.{number}" + ".name" * ("name" in entry),
                fix="{name: FrameStackObservation, stack_size: 4}",
            )
    if experiment.env.squash_actions and not experiment.env.scale_actions:
        raise ConfigError(
            "squashed actions are in units of a range",
            where="env.scale_actions",
            fix="leave it out, or set env.squash_actions=false",
        )
    _refuse_infinities(experiment)
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


def _refuse_infinities(experiment: Experiment) -> None:
    sections: dict[str, Mapping[str, WrapperValue]] = {
        "algorithm": experiment.algorithm,
        "env.kwargs": experiment.env.kwargs,
        **{f"env.wrappers.{i}": entry for i, entry in enumerate(experiment.env.wrappers)},
    }
    for section, values in sections.items():
        for key, value in values.items():
            for one in value if isinstance(value, tuple) else (value,):
                if isinstance(one, float) and not math.isfinite(one):
                    raise ConfigError(f"{one} is not a finite number", where=f"{section}.{key}")
