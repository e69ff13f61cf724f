"""Looks at what the network of a run gets, chooses and remembers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import msgspec
import torch

from engine.algorithms.base import SampleRequest, Spaces
from engine.algorithms.teams.identity import identified_space
from engine.blueprint import STEP_FIELDS, make_suitable
from engine.devices.visible import CPU
from engine.envs.make import make_vector_env, spaces_of
from engine.envs.observed import look_at_first
from engine.envs.rehearsal import first_reset
from engine.envs.torch_envs import make_torch_env, torch_spaces_of
from engine.executors.warm_start import wanted_tensors
from engine.extensions import import_all
from engine.graph.cut import Cut, single_cut
from engine.layers.encoders import encoded_leaves
from engine.outline import Outline, OutlinedAction, OutlinedLeaf, OutlinedPolicy, OutlinedReplay
from engine.rollout import Layout
from engine.spaces.action_parts import num_choices_of
from engine.spaces.leaves import AnySpace, leaf_names, leaves_of, num_entries
from engine.spaces.team import Team, check_return_of
from engine.spec import EnvSpec, Experiment, NetworkSpec
from engine.trace.warm_start import SavedTensor, TakenWeights, match


def outline_of(
    experiment: Experiment, cut: Cut, saved: Mapping[str, SavedTensor] | None = None
) -> tuple[Outline, TakenWeights | None]:
    """Makes an environment, resets it once, and looks at what its network would be.

    Args:
        experiment: The run.
        cut: How it is spread over processes.
        saved: Weights of a former run that it is to start with, by parameter.

    Returns:
        The outline, and which of these weights fit.

    Raises:
        ConfigError: A module, the environment, the algorithm or the network cannot be used here.
    """
    import_all(experiment)
    spaces, source = _spaces(experiment, cut)
    check_return_of(experiment.stop.return_of, spaces.team)
    algorithm = make_suitable(experiment, cut, spaces)
    taken = None if saved is None else match(saved, wanted_tensors(algorithm))
    outline = _outline(experiment.network, spaces, source)
    replay = _replay(experiment, cut, algorithm.samples())
    return msgspec.structs.replace(outline, replay=replay), taken


def num_trained_apart(experiment: Experiment) -> int:
    """Policies of the environment's team that can have a learner each; 1 if the algorithm trains
    them together.

    Raises:
        ConfigError: A module, the environment or the algorithm cannot be used here.
    """
    import_all(experiment)
    env = make_vector_env(msgspec.structs.replace(experiment.env, num_envs=1, num_splits=1))
    try:
        spaces = spaces_of(env, experiment.agents)
    finally:
        env.close()
    samples = make_suitable(experiment, single_cut(experiment), spaces).samples()
    if spaces.team is None or not samples.trains_apart:
        return 1
    return len(spaces.team.policies)


def _outline(network: NetworkSpec, spaces: Spaces, source: str | None) -> Outline:
    is_team = spaces.team is not None
    return Outline(
        observation=() if is_team else _observation(network, spaces.observation),
        action=() if is_team else _action(spaces.action),
        action_mask=source,
        core=f"{network.core.name} of {network.core.size}" if network.core else None,
        policies=() if spaces.team is None else _policies(network, spaces.team),
    )


def _policies(network: NetworkSpec, team: Team) -> tuple[OutlinedPolicy, ...]:
    return tuple(
        OutlinedPolicy(
            name=policy.name,
            agents=tuple(team.agents[agent] for agent in policy.agents),
            observation=_observation(
                network,
                identified_space(policy.observation, len(policy.agents))
                if len(policy.agents) > 1
                else policy.observation,
            ),
            action=_action(policy.action),
        )
        for policy in team.policies
    )


def _observation(network: NetworkSpec, space: AnySpace) -> tuple[OutlinedLeaf, ...]:
    return tuple(
        OutlinedLeaf(name=leaf.name, space=_words(leaf.space), encoder=leaf.encoder)
        for leaf in encoded_leaves(space, network)
    )


def _action(space: AnySpace) -> tuple[OutlinedAction, ...]:
    leaves = leaves_of(space, "action")
    names = leaf_names(leaves, "action") if len(leaves) > 1 else ("action",)
    return tuple(
        OutlinedAction(
            name=name,
            space=_words(leaf.space),
            choices=(choices := num_choices_of(leaf.space)),
            num_reals=0 if choices else num_entries(leaf.space),
        )
        for name, leaf in zip(names, leaves, strict=True)
    )


def _replay(experiment: Experiment, cut: Cut, samples: SampleRequest) -> OutlinedReplay | None:
    request, checkpoint = samples.replay, experiment.checkpoint
    if request is None:
        return None
    num_envs = experiment.env.num_envs
    layout = Layout((*samples.fields, *STEP_FIELDS), samples.rollout_steps, num_envs)
    num_slots = -(-request.capacity // (samples.rollout_steps * num_envs))
    store_bytes = num_slots * layout.num_bytes
    most_saved = (checkpoint.keep + 1) * cut.groups * store_bytes
    return OutlinedReplay(
        stores=cut.groups,
        env_steps=request.capacity,
        store_bytes=store_bytes,
        saved_bytes=most_saved if checkpoint.replay else 0,
    )


def _spaces(experiment: Experiment, cut: Cut) -> tuple[Spaces, str | None]:
    """The spaces of one environment, and where its action masks come from."""
    spec: EnvSpec = msgspec.structs.replace(experiment.env, num_envs=1, num_splits=1)
    if cut.steps_tensors(spec):
        of_tensors = make_torch_env(spec, torch.device(CPU))
        return torch_spaces_of(of_tensors, experiment.agents), None
    env = make_vector_env(spec)
    try:
        declared = spaces_of(env, experiment.agents)
        if declared.has_action_mask:
            return declared, "observation"
        seen = first_reset(lambda: look_at_first(env, declared, spec, experiment.seed), spec)
        if seen is not None and seen[0].has_action_mask:
            return replace(declared, has_action_mask=True), "info"
        return declared, None
    finally:
        env.close()


def _words(space: object) -> str:
    return " ".join(str(space).split())
