"""A checked experiment, ready to run: algorithm, layouts, sizes. Every process has the same."""

from __future__ import annotations

from dataclasses import dataclass, replace

import msgspec
import torch
from torch import Tensor

from engine.admission.bounded import most_collecting
from engine.algorithms.base import Algorithm, EnvSlice, ReplayRequest, SampleRequest, Spaces
from engine.algorithms.registry import make_algorithm
from engine.algorithms.teams.parts import NUM_VECTORS, check_apart
from engine.batch_shares import Sharing, check_division, share_of_replay, sharing_of
from engine.blame import blamed
from engine.devices.visible import CPU
from engine.envs.make import make_vector_env, spaces_of
from engine.envs.observed import look_at_first
from engine.envs.rehearsal import check_acting, first_reset
from engine.envs.torch_envs import TORCH, make_torch_env, torch_spaces_of
from engine.errors import ConfigError, PreflightError
from engine.extensions import import_all
from engine.graph.cut import Cut, single_cut
from engine.graph.policy import Trait
from engine.layers.flat import FlatParameters, flatten
from engine.layers.inputs import STATE, input_names
from engine.layers.trunks import refuse_parameters
from engine.rollout import NEXT, PRIORITY_FIELDS, Field, Layout
from engine.spaces.observations import MASK, OBSERVATION
from engine.spaces.team import check_return_of
from engine.spec import EnvSpec, Experiment, StalenessSpec
from engine.wire.arena import Arena
from engine.wire.codec import WeightsLayout
from engine.wire.weights_buffer import SharedWeights
from engine.wording import plural

LACKS = {
    "corrects_staleness": "does not correct for stale samples",
    "shares_batches": "cannot share one batch between learners",
    "samples_queue": "learns from replayed samples, which are old on purpose",
    "samples_replay": "does not learn from replayed samples",
}
"""What an error says about an algorithm without a trait."""

STEP_FIELDS = (
    Field("reward", "float32"),
    Field("terminated", "bool"),
    Field("truncated", "bool"),
    Field("valid", "bool"),
)
"""The fields of every rollout beside the algorithm's own."""


@dataclass(frozen=True)
class Blueprint:
    """What all roles of a run have in common; `of_group` gives that of one learner's roles.

    Attributes:
        experiment: The run.
        spaces: Of one environment.
        algorithm: Made from both.
        layout: Of a rollout.
        weights: Of the flat parameters.
        rollouts_per_batch: Rollouts in one learner's batch, or its share of one (queue); 0 for
            replay.
        cut: How the run is spread over processes.
        replay: The request to a replay store; None if samples come from a queue.
        samples, priorities: Layouts of drawn samples and of their priorities (replay).
        sharing: How learners that update together share a batch.
        env: The environments of one actor.
        group: The learner whose roles this is for.
    """

    experiment: Experiment
    spaces: Spaces
    algorithm: Algorithm
    layout: Layout
    weights: WeightsLayout
    rollouts_per_batch: int
    cut: Cut
    replay: ReplayRequest | None
    samples: Layout
    priorities: Layout
    sharing: Sharing
    env: EnvSpec
    group: int = 0

    @property
    def steps_tensors(self) -> bool:
        """Whether actors step environments of tensors."""
        return self.cut.steps_tensors(self.env)

    def of_group(self, group: int) -> Blueprint:
        """The same for the roles of one learner, whose share of a batch can differ from others, or
        which acts and learns for one policy of a team only."""
        if self.cut.is_apart:
            return self._of_policy(group)
        if not self.cut.is_joint:
            return replace(self, group=group)
        num_envs = self.sharing.num_envs[group]
        request = self.replay and share_of_replay(self.replay, self.sharing, group)
        return replace(
            self,
            layout=Layout(self.layout.fields, self.layout.num_steps, num_envs),
            env=msgspec.structs.replace(self.env, num_envs=num_envs),
            replay=request,
            samples=_sample_layout(self.samples.fields, request),
            priorities=_sample_layout(self.priorities.fields, request),
            group=group,
        )

    def _of_policy(self, group: int) -> Blueprint:
        """The same for the roles of the learner of one policy."""
        team = self.spaces.team
        assert team is not None, "only a team has several policies"
        own = replace(team, own=frozenset({team.policies[group].name}))
        spaces = replace(self.spaces, team=own)
        algorithm = make_suitable(self.experiment, self.cut, spaces)
        return replace(self, spaces=spaces, algorithm=algorithm, group=group)

    def slice_of(self, actor: int) -> EnvSlice:
        """The environments of an actor, among all of the run."""
        if self.cut.is_apart:
            count = self.layout.num_envs
            first, total = self.cut.environment_of(actor) * count, self.cut.num_environments * count
            return EnvSlice(first, count, total)
        counts = self.sharing.num_envs  # of an actor of each group; one entry if groups are equal
        before = sum(counts[number % len(counts)] for number in range(actor))
        total = sum(counts[number % len(counts)] for number in range(self.cut.actors))
        return EnvSlice(before, counts[actor % len(counts)], total)

    @property
    def observed(self) -> tuple[str, ...]:
        """The fields of a rollout that an environment's observations and masks go to."""
        return tuple(name for name in input_names(self.layout.fields) if name != STATE)

    @property
    def model(self) -> WeightsLayout:
        """Of what learners and their reducer exchange: the parameters; if each learner trains a
        part, also the moments of its optimiser (`engine.algorithms.teams.parts`)."""
        num_vectors = NUM_VECTORS if self.cut.is_apart else 1
        return WeightsLayout(num_vectors * self.weights.num_bytes, self.weights.digest)

    @property
    def num_actors(self) -> int:
        """Of this learner."""
        return sum(self.cut.group_of(actor) == self.group for actor in range(self.cut.actors))

    @property
    def keeps_in_step(self) -> bool:
        """Whether actors of a replay store use only the newest weights, as the policy requires."""
        return self.replay is not None and _bounds_lag(self.cut)

    @property
    def keeps_replay(self) -> bool:
        """Whether a replay store is saved with each checkpoint."""
        return self.replay is not None and self.experiment.checkpoint.replay


def make_blueprint(
    experiment: Experiment,
    cut: Cut | None = None,
    *,
    rehearses: bool = False,
    has_action_mask: bool = False,
) -> Blueprint:
    """Makes an environment once to get its spaces, and derives everything from them.

    Args:
        experiment: The run.
        cut: How it is spread over processes; without it, one group.
        rehearses: Whether to reset that environment and to act in it once, as a run is about to.
        has_action_mask: Whether its info has action masks, if that is known from a rehearsal.

    Raises:
        ConfigError: A module, the environment, the algorithm or a size cannot be used; `where`
            is the dotted key.
    """
    import_all(experiment)
    cut = cut or single_cut(experiment)
    _check_splits(experiment, cut)
    _check_tensors(experiment, cut)
    _check_devices(experiment, cut)
    spaces, observed = _look_at_environment(experiment, cut, rehearses)
    if has_action_mask:
        spaces = replace(spaces, has_action_mask=True)
    check_return_of(experiment.stop.return_of, spaces.team)
    algorithm = make_suitable(experiment, cut, spaces)
    samples = algorithm.samples()
    layout = Layout((*samples.fields, *STEP_FIELDS), samples.rollout_steps, experiment.env.num_envs)
    _check_inputs(experiment, spaces, samples)
    weights = _flat_weights(algorithm)
    if cut.is_apart:
        _check_apart(experiment, cut, spaces, algorithm)
    if observed is not None:
        check_acting(algorithm, layout.fields, observed)
    request = samples.replay
    sharing = sharing_of(samples, experiment, cut)
    return Blueprint(
        experiment,
        spaces,
        algorithm,
        layout,
        WeightsLayout(weights.num_bytes, weights.digest),
        sharing.rollouts_per_batch,
        cut,
        request,
        _sample_layout(samples.sample_fields, request),
        _sample_layout(PRIORITY_FIELDS if request else (), request),
        sharing,
        experiment.env,
    )


def _check_apart(experiment: Experiment, cut: Cut, spaces: Spaces, algorithm: Algorithm) -> None:
    """Raises ConfigError unless there is a policy for each learner, which it can train alone."""
    num_policies = len(spaces.team.policies) if spaces.team is not None else 1
    if spaces.team is None or num_policies != cut.groups:
        raise ConfigError(
            f"{plural(cut.groups, 'learner')} for a team with {num_policies} of its policies here",
            where="agents",
            fix="use the same version of the environment everywhere",
        )
    check_apart(experiment.algorithm_name, algorithm.samples(), algorithm.network(), spaces.team)


def _check_inputs(experiment: Experiment, spaces: Spaces, samples: SampleRequest) -> None:
    """Raises ConfigError if the algorithm would not use a memory that the experiment asks for, or
    has a field of its own with the name of something else."""
    name, names = experiment.algorithm_name, {field.name for field in samples.fields}
    if experiment.network.core is not None and STATE not in names:
        raise ConfigError(
            f"{name} does not use a memory",
            where="network.core",
            fix="leave it out, or use ppo, impala, dqn or apex",
        )
    taken = [field for field in names if samples.replay is not None and field.startswith(NEXT)]
    if experiment.network.core is None and STATE in names:
        taken.append(STATE)
    if not spaces.has_action_mask and MASK in names:
        taken.append(MASK)
    if taken:
        raise ConfigError(
            f"{name} declares the field {taken[0]!r}, which has a meaning of its own:"
            f" {STATE!r} is the memory of a network with a core, {MASK!r} is what an environment"
            f" gives, and in samples from replay {NEXT!r} begins the names of next states",
            where="algorithm.name",
            fix="give that field another name",
        )


def _sample_layout(fields: tuple[Field, ...], request: ReplayRequest | None) -> Layout:
    shape = (request.updates_per_batch, request.batch_size) if request else (0, 0)
    return Layout(fields, *shape)


def _look_at_environment(
    experiment: Experiment, cut: Cut, rehearses: bool
) -> tuple[Spaces, dict[str, Tensor] | None]:
    """Spaces of one environment, made in the same way as those of the run; and what the first reset
    gave by the name of its field, if it is tried."""
    spec, seed = experiment.env, experiment.seed
    stepped: tuple[Spaces, dict[str, Tensor] | None] | None = None
    if cut.steps_tensors(spec):
        of_tensors = make_torch_env(spec, torch.device(CPU))
        spaces = torch_spaces_of(of_tensors, experiment.agents)
        first = first_reset(lambda: of_tensors.reset(seed), spec) if rehearses else None
        stepped = spaces, None if first is None else {OBSERVATION: first}
        if not cut.has_evaluator:
            return stepped
    env = make_vector_env(spec)
    try:
        spaces = spaces_of(env, experiment.agents)
        if not rehearses:
            return stepped or (spaces, None)
        seen = first_reset(lambda: look_at_first(env, spaces, spec, seed), spec)
    finally:
        env.close()
    if stepped is not None and seen is not None and seen[0].has_action_mask:
        raise ConfigError(
            f"{spec.id} has action masks, which its version of tensors cannot give",
            where="policy" if cut.is_on_device else "env.backend",
            fix="use another policy" if cut.is_on_device else "leave it out",
        )
    return stepped or seen or (spaces, None)


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
    """Raises ConfigError if the environments cannot be split as configured."""
    num_splits = experiment.env.num_splits
    check_division(experiment.env.num_envs, num_splits)
    if num_splits > 1 and (cut.has_remote_env or cut.is_on_device):
        raise ConfigError(
            f"with policy {cut.policy}, an actor does not step environments by itself",
            where="env.num_splits",
            fix="set it to 1, or use another policy",
        )


def _check_tensors(experiment: Experiment, cut: Cut) -> None:
    """Raises ConfigError if `env.backend: torch` does not suit the rest; a fused loop has the same
    environments and checks of its own."""
    if experiment.env.backend != TORCH or cut.is_on_device:
        return
    if cut.has_remote_env:
        raise ConfigError(
            f"actors of policy {cut.policy} do not step environments by themselves, and only they"
            " step those of tensors",
            where="env.backend",
            fix="leave it out, or use another policy",
        )
    if experiment.env.num_splits > 1:
        raise ConfigError(
            "environments of tensors all step at once", where="env.num_splits", fix="set it to 1"
        )
    if experiment.actor.device not in ("auto", CPU):
        raise ConfigError(
            "with env.backend=torch actors step and act on processors",
            where="actor.device",
            fix="leave it out, or use policy gpu-only",
        )


def _check_devices(experiment: Experiment, cut: Cut) -> None:
    """Raises ConfigError if the parts of a fused loop are to be on several devices."""
    wanted = experiment.actor.device
    if cut.is_on_device and wanted not in ("auto", experiment.learner.device):
        raise ConfigError(
            f"with policy {cut.policy}, acting and learning share one device",
            where="actor.device",
            fix="leave it out: learner.device is for both",
        )


def make_suitable(experiment: Experiment, cut: Cut, spaces: Spaces) -> Algorithm:
    """Makes the algorithm, and refuses a policy that it does not work with."""
    open_rule = msgspec.structs.replace(experiment, staleness=StalenessSpec(mode="unbounded"))
    algorithm = make_algorithm(open_rule, spaces)
    _check_traits(algorithm.samples(), experiment, cut)
    # A policy that bounds lag synchronizes actors of a replay store; samples are old in any case.
    is_settled = algorithm.samples().samples_replay and _bounds_lag(cut)
    return algorithm if is_settled else make_algorithm(experiment, spaces)


def _bounds_lag(cut: Cut) -> bool:
    """Whether it is the policy, not the experiment, that bounds how old a sample may be."""
    return cut.fixes_staleness and cut.staleness.mode in ("block", "drop")


def _check_traits(samples: SampleRequest, experiment: Experiment, cut: Cut) -> None:
    shared: tuple[Trait, ...] = ("shares_batches",) if cut.is_joint else ()
    for trait in (*cut.requires, *shared):
        if not getattr(samples, trait):
            fix = "use another policy, such as tianji, or another algorithm"
            if trait == "corrects_staleness" and samples.corrections:
                fix = f"{fix}; or set {samples.corrections_in_words}"
            raise ConfigError(
                f"{cut.policy} does not suit {experiment.algorithm_name}, which {LACKS[trait]}",
                where="policy",
                fix=fix,
            )


def make_arena(blueprint: Blueprint) -> Arena:
    """Slots for all rollouts that can be in transit at once; beyond that, actors use own memory.

    These are what the buffer admits, a staged batch and one in training, and for each actor the
    rollout that it writes.
    """
    staleness, cut = blueprint.experiment.staleness, blueprint.cut
    per_batch = blueprint.rollouts_per_batch
    num_actors = min(len(cut.actors_of(group)) for group in range(cut.groups))
    on_their_way = staleness.queue_length(num_actors, per_batch) + 2 * per_batch
    slots_per_actor = -(-on_their_way // num_actors) + 1
    buffers = [cut.group_of(actor) for actor in range(cut.actors)]
    num_kept = staleness.lag + 1 if staleness.is_fixed else None
    shared_weights = SharedWeights(cut.groups, blueprint.weights.num_bytes, num_kept)
    try:
        return Arena(
            cut.actors, slots_per_actor, blueprint.layout.num_bytes, buffers, shared_weights
        )
    except OSError as error:
        raise PreflightError(
            f"cannot allocate the memory that roles share: {error.strerror}",
            where="staleness.max_queued_rollouts",
            fix="queue fewer rollouts, or run fewer roles there",
        ) from error


def notes_on_queue(blueprint: Blueprint) -> tuple[str, ...]:
    """Warnings for the user if the rules leave some actors only waiting."""
    cut, staleness = blueprint.cut, blueprint.experiment.staleness
    per_batch = blueprint.rollouts_per_batch
    if not per_batch:
        return ()
    num_actors = len(cut.actors_of(0))
    most = most_collecting(staleness, per_batch, num_actors)
    if most == num_actors:
        return ()
    whose = (
        plural(num_actors, "actor")
        if cut.groups == 1
        else f"a group's {plural(num_actors, 'actor')}"
    )
    if most == staleness.queue_length(num_actors, per_batch):
        key, wanted = "staleness.max_queued_rollouts", f"{num_actors + per_batch} or null"
        why = f"{plural(most, 'rollout')} may be queued"
    else:
        versions = plural(staleness.bound or 0, "version")
        key = "staleness.lag" if staleness.is_fixed else "staleness.max_lag"
        wanted = str(-(-num_actors // per_batch) - 1)
        why = f"a batch is {plural(per_batch, 'rollout')} and may be {versions} old"
    return (f"of {whose} at most {most} collect at the same time, since {why}; set {key}={wanted}",)
