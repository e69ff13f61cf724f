"""Makes the network of a run again, with the weights of one of its checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import gymnasium
import msgspec
import torch
from torch import nn

from engine.algorithms.base import Algorithm, Spaces
from engine.algorithms.registry import make_algorithm
from engine.devices.visible import CPU
from engine.envs.make import make_vector_env, spaces_of
from engine.envs.observed import look_at_first
from engine.envs.rehearsal import first_reset
from engine.envs.torch_envs import (
    TORCH_ENVIRONMENTS,
    declared_action_space,
    make_torch_env,
    torch_spaces_of,
)
from engine.executors.checkpoint import load_network
from engine.executors.policy_runner import PolicyRunner, sampling
from engine.extensions import import_all
from engine.rollout import Field
from engine.spaces.leaves import AnySpace
from engine.spec import Experiment, Scalar, StalenessSpec
from engine.trace.checkpoint_file import CheckpointInfo
from engine.trained.run import TrainedRun


@dataclass(frozen=True)
class Trained:
    """A trained network and all that is needed to act with it.

    Attributes:
        run: Where it comes from.
        experiment: That of the run, with other `env.kwargs` where they were given.
        spaces: What the network sees and chooses in.
        observation_space: Of one environment as it declares it, an action mask included.
        action_space: Likewise; a Discrete in `spaces` is counted from 0.
        algorithm: Of the run.
        network: With the weights of the checkpoint; no gradients.
        fields: Of a rollout, as far as the algorithm declares them.
    """

    run: TrainedRun
    experiment: Experiment
    spaces: Spaces
    observation_space: AnySpace
    action_space: AnySpace
    algorithm: Algorithm
    network: nn.Module
    fields: tuple[Field, ...]

    @property
    def info(self) -> CheckpointInfo:
        """Of the checkpoint."""
        return self.run.checkpoint.info

    def runner(self, num_envs: int, generator: torch.Generator | None = None) -> PolicyRunner:
        """Acts in B environments.

        Args:
            num_envs: B.
            generator: With it, actions are sampled as in training; without, the best known.
        """
        greedy = self.algorithm.act_greedily
        choose = greedy if generator is None else sampling(self.algorithm, generator)
        return PolicyRunner(choose, self.network, self.fields, num_envs)


def load_trained(run: TrainedRun, env_kwargs: Mapping[str, Scalar] | None = None) -> Trained:
    """Makes the environment once, for its spaces, and the network, and loads the weights.

    Modules that the experiment names are imported, so the run must be trusted.

    Args:
        run: As `read_trained` has found it.
        env_kwargs: Arguments of the environment's constructor that replace those of the run.

    Raises:
        ConfigError: A module, the environment or the checkpoint cannot be used, or does not fit.
    """
    import_all(run.experiment)
    env = msgspec.structs.replace(
        run.experiment.env, kwargs={**run.experiment.env.kwargs, **(env_kwargs or {})}
    )
    experiment = msgspec.structs.replace(run.experiment, env=env)
    single = msgspec.structs.replace(env, num_envs=1, num_splits=1)
    spaces, observation_space, action_space = _look(msgspec.structs.replace(experiment, env=single))
    # How old samples could be during training does not matter any more.
    open_rule = msgspec.structs.replace(experiment, staleness=StalenessSpec(mode="unbounded"))
    algorithm = make_algorithm(open_rule, spaces)
    network = algorithm.network().requires_grad_(False).eval()
    load_network(run.checkpoint.path, network)
    fields = algorithm.samples().fields
    return Trained(
        run, experiment, spaces, observation_space, action_space, algorithm, network, fields
    )


def _look(experiment: Experiment) -> tuple[Spaces, AnySpace, AnySpace]:
    """The spaces of an experiment's environment; and both as it declares them."""
    spec = experiment.env
    name = spec.registered_id
    if name in TORCH_ENVIRONMENTS and name not in gymnasium.registry:
        of_tensors = make_torch_env(spec, torch.device(CPU))
        spaces = torch_spaces_of(of_tensors, experiment.agents)
        return spaces, spaces.observation, declared_action_space(of_tensors)
    env = make_vector_env(spec)
    try:
        spaces = spaces_of(env, experiment.agents)
        seen = first_reset(lambda: look_at_first(env, spaces, spec, experiment.seed), spec)
        # Actions are flat for all wrappers around what the environment declares.
        declared = env.unwrapped.single_action_space
        return seen[0] if seen else spaces, env.single_observation_space, declared
    finally:
        env.close()
