"""A checked experiment, ready to run: algorithm, layouts, sizes. Every process has the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from msgspec.structs import replace
from torch import Tensor

from engine.algorithms.base import Algorithm, ReplayRequest, SampleRequest, Spaces
from engine.algorithms.flat import FlatParameters, flatten
from engine.algorithms.registry import make_algorithm
from engine.algorithms.trunks import refuse_parameters
from engine.balance import most_collecting
from engine.blame import blamed
from engine.envs.make import make_vector_env, spaces_of
from engine.envs.torch_envs import make_torch_env, torch_spaces_of
from engine.errors import ConfigError, PreflightError
from engine.extensions import import_modules
from engine.graph.cut import Cut, single_cut
from engine.graph.policy import Trait
from engine.rollout import PRIORITY_FIELDS, Field, Layout
from engine.runtime.device import CPU, find_devices
from engine.runtime.rehearsal import check_acting, first_observation
from engine.spec import Experiment, StalenessSpec
from engine.wire.arena import Arena
from engine.wire.board import Board
from engine.wire.codec import WeightsLayout

LACKS = {
    "corrects_staleness": "does not correct for stale samples",
    "shares_batches": "cannot share one batch between learners",
    "samples_queue": "learns from replayed samples, which are old on purpose",
    "samples_replay": "does not learn from replayed samples",
}
"""What an algorithm without a trait is told."""

STEP_FIELDS = (
    Field("reward", "float32"),
    Field("terminated", "bool"),
    Field("truncated", "bool"),
    Field("valid", "bool"),
)
"""What every rollout holds beside the algorithm's own fields."""


@dataclass(frozen=True)
class Blueprint:
    """What all roles of a run agree on.

    Attributes:
        experiment: The run.
        algorithm: Made from it.
        layout: Of a rollout.
        weights: Of the flat parameters.
        rollouts_per_batch: Rollouts that one learner's batch, or its share of one, is made of
            (queue); 0 for replay.
        cut: How the run is spread over processes.
        replay: What is wanted from a replay store; None if samples come from a queue.
        samples, priorities: Layouts of drawn samples and of their priorities (replay).
        devices: What loops that are fused on a device run on.
    """

    experiment: Experiment
    algorithm: Algorithm
    layout: Layout
    weights: WeightsLayout
    rollouts_per_batch: int
    cut: Cut
    replay: ReplayRequest | None
    samples: Layout
    priorities: Layout
    devices: tuple[str, ...] = (CPU,)

    def device_of(self, replica: int) -> torch.device:
        """The device of one replica of the loop; they are dealt out in turn."""
        return torch.device(self.devices[replica % len(self.devices)])


def make_blueprint(
    experiment: Experiment,
    cut: Cut | None = None,
    gpus: Sequence[int] | None = None,
    *,
    rehearses: bool = False,
) -> Blueprint:
    """Makes an environment once to learn its spaces, and works everything out from them.

    Args:
        experiment: The run.
        cut: How it is spread over processes; without it, one group.
        gpus: Those that the inventory gives to this host; None if it does not say.
        rehearses: Whether to reset that environment and to act in it once, as a run is about to.

    Raises:
        PreflightError: GPUs are given, and wanted, but not there.
        ConfigError: A module, the environment, the algorithm or a size cannot be used; `where`
            is the dotted key.
    """
    import_modules(experiment.modules)
    if experiment.env.module is not None:
        import_modules([experiment.env.module], where="env.id")
    cut = cut or single_cut(experiment)
    _check_splits(experiment, cut)
    devices = find_devices(gpus) if cut.is_on_device else (CPU,)
    spaces, observation = _look_at_environment(experiment, cut, rehearses)
    algorithm = make_suitable(experiment, cut, spaces)
    samples = algorithm.samples()
    layout = Layout((*samples.fields, *STEP_FIELDS), samples.rollout_steps, experiment.env.num_envs)
    weights = _flat_weights(algorithm)
    if observation is not None:
        check_acting(algorithm, layout.fields, observation)
    request = samples.replay
    shape = (request.updates_per_batch, request.batch_size) if request else (0, 0)
    return Blueprint(
        experiment,
        algorithm,
        layout,
        WeightsLayout(weights.num_bytes, weights.digest),
        0 if request else _share_of_batch(_rollouts_per_batch(samples, layout), cut),
        cut,
        request,
        Layout(samples.sample_fields, *shape),
        Layout(PRIORITY_FIELDS if request else (), *shape),
        devices,
    )


def _look_at_environment(
    experiment: Experiment, cut: Cut, rehearses: bool
) -> tuple[Spaces, Tensor | None]:
    """Spaces of one environment, made for the purpose as those of the run will be; and what the
    first reset gives, if it is to be tried."""
    spec, seed = experiment.env, experiment.seed
    spaces: Spaces | None = None
    observation: Tensor | None = None
    if cut.is_on_device:
        of_tensors = make_torch_env(spec, torch.device(CPU))
        spaces = torch_spaces_of(of_tensors)
        if rehearses:
            observation = first_observation(lambda: of_tensors.reset(seed), spec)
        if not cut.has_evaluator:
            return spaces, observation
    env = make_vector_env(spec)
    try:
        spaces = spaces or spaces_of(env)
        if rehearses:
            first = first_observation(lambda: env.reset(seed=seed)[0], spec)
            observation = first if observation is None else observation
    finally:
        env.close()
    return spaces, observation


def _flat_weights(algorithm: Algorithm) -> FlatParameters:
    """The parameters of a network as actors and learners will have them.

    Raises:
        ConfigError: It cannot be built, or its parameters cannot be used.
    """
    with blamed("the network cannot be built", where="network"):
        network = algorithm.network()
        has_parameters = any(True for _ in network.parameters())
    if not has_parameters:
        raise ConfigError(
            "the network has no parameters, so nothing can be learnt", where="network"
        )
    refuse_parameters("the network", network)
    return flatten(network)


def _check_splits(experiment: Experiment, cut: Cut) -> None:
    """Raises ConfigError if the environments cannot be split as wanted."""
    num_envs, num_splits = experiment.env.num_envs, experiment.env.num_splits
    if num_envs % num_splits:
        raise ConfigError(
            f"{num_envs} environments cannot be split into {num_splits} equal parts",
            where="env.num_splits",
            fix="take a divisor of env.num_envs",
        )
    if num_splits > 1 and (cut.has_remote_env or cut.is_on_device):
        raise ConfigError(
            f"with {cut.policy} an actor does not step environments by itself",
            where="env.num_splits",
            fix="set it to 1, or take another policy",
        )


def _rollouts_per_batch(samples: SampleRequest, layout: Layout) -> int:
    """Raises ConfigError if a batch is not a whole number of rollouts."""
    rollout_steps = layout.num_steps * layout.num_envs
    if samples.batch_steps % rollout_steps:
        raise ConfigError(
            f"{samples.batch_steps} is not a multiple of a rollout's {rollout_steps} steps"
            f" ({layout.num_steps} steps of {layout.num_envs} environments"
            f"{_fitting(samples, layout)})",
            where="algorithm.batch_steps",
            fix=f"try {-(-samples.batch_steps // rollout_steps) * rollout_steps}",
        )
    return samples.batch_steps // rollout_steps


def _fitting(samples: SampleRequest, layout: Layout) -> str:
    """The nearest smaller number of environments with which a batch would be whole, in words."""
    most = samples.batch_steps // layout.num_steps
    for num_envs in range(min(layout.num_envs, most), 0, -1):
        if samples.batch_steps % (layout.num_steps * num_envs) == 0:
            return f"; {num_envs} would fit"
    return ""


def make_suitable(experiment: Experiment, cut: Cut, spaces: Spaces) -> Algorithm:
    """Makes the algorithm, and refuses a policy that it does not suit."""
    open_rule = replace(experiment, staleness=StalenessSpec(mode="unbounded"))
    _check_traits(make_algorithm(open_rule, spaces).samples(), experiment, cut)
    return make_algorithm(experiment, spaces)


def _check_traits(samples: SampleRequest, experiment: Experiment, cut: Cut) -> None:
    shared: tuple[Trait, ...] = ("shares_batches",) if cut.is_joint else ()
    for trait in (*cut.requires, *shared):
        if not getattr(samples, trait):
            raise ConfigError(
                f"{cut.policy} does not suit {experiment.algorithm_name}, which {LACKS[trait]}",
                where="policy",
                fix="take another policy, such as tianji, or another algorithm",
            )
    _check_statistics(experiment, cut)


def _check_statistics(experiment: Experiment, cut: Cut) -> None:
    """Raises ConfigError if learners that are merged keep running statistics.

    These lie among the parameters, and are no progress that could be added up: of variances that
    several learners have each brought down, the sum is negative.
    """
    is_merged = cut.groups > 1 and cut.merge != "none"
    statistics = {
        "network.normalize_observation": experiment.network.normalize_observation,
        "algorithm.normalize_reward": bool(experiment.algorithm.get("normalize_reward")),
    }
    if is_merged and any(statistics.values()):
        raise ConfigError(
            f"{cut.policy} with {cut.groups} learners cannot share running statistics between them",
            where=next(key for key, is_on in statistics.items() if is_on),
            fix="set it to false, or train with one learner: one group, or another policy",
        )


def _share_of_batch(num_rollouts: int, cut: Cut) -> int:
    """Rollouts of one learner's batch; learners that update together share one."""
    if not cut.is_joint:
        return num_rollouts
    if num_rollouts % cut.groups:
        raise ConfigError(
            f"a batch of {num_rollouts} rollouts cannot be shared by {cut.groups} learners",
            where="algorithm.batch_steps",
            fix=f"make a batch of {cut.groups} rollouts, or of a multiple",
        )
    return num_rollouts // cut.groups


def make_arena(blueprint: Blueprint) -> Arena:
    """Slots for all rollouts that may be on their way at once; actors that want more use their own.

    That is what the buffer admits, a batch that is staged and one that is trained, and for each
    actor the one that it writes.
    """
    experiment, cut = blueprint.experiment, blueprint.cut
    per_batch = blueprint.rollouts_per_batch
    num_actors = min(len(cut.actors_of(group)) for group in range(cut.groups))
    on_their_way = experiment.staleness.queue_length(num_actors, per_batch) + 2 * per_batch
    slots_per_actor = -(-on_their_way // num_actors) + 1
    buffers = [blueprint.cut.group_of(actor) for actor in range(experiment.actors)]
    board = Board(blueprint.cut.groups, blueprint.weights.num_bytes)
    try:
        return Arena(experiment.actors, slots_per_actor, blueprint.layout.num_bytes, buffers, board)
    except OSError as error:
        raise PreflightError(
            f"the memory that roles share cannot be had: {error.strerror}",
            where="staleness.max_queued_rollouts",
            fix="queue fewer rollouts, or run fewer roles there",
        ) from error


def notes_on_queue(blueprint: Blueprint) -> tuple[str, ...]:
    """Words for the user where the rules let some actors only wait."""
    cut, staleness = blueprint.cut, blueprint.experiment.staleness
    per_batch = blueprint.rollouts_per_batch
    if not per_batch:
        return ()
    num_actors = len(cut.actors_of(0))
    most = most_collecting(staleness, per_batch, num_actors)
    if most == num_actors:
        return ()
    whose = f"{num_actors} actors" if cut.groups == 1 else f"a group's {num_actors} actors"
    if most == staleness.queue_length(num_actors, per_batch):
        key, wanted = "staleness.max_queued_rollouts", f"{num_actors + per_batch} or null"
        why = f"{most} rollouts may be queued"
    else:
        key, wanted = "staleness.max_lag", str(-(-num_actors // per_batch) - 1)
        why = f"a batch is {per_batch} rollouts and may be {staleness.max_lag} versions old"
    return (f"of {whose} at most {most} collect at the same time, since {why}; set {key}={wanted}",)
