"""A trained policy as a function: `action = policy(observation)`.

from engine import load_policy

policy = load_policy("results/20260131-235959-cartpole_ppo")
observation, _ = env.reset(seed=0)
action = policy(observation)
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
import torch

from engine.envs.actions.squash import squashed_columns
from engine.envs.actions.structure import ActionStructure
from engine.envs.observed import Observed
from engine.errors import ConfigError
from engine.executors.policy_runner import PolicyRunner, sampling
from engine.spaces.leaves import AnySpace, Structure, leaf_values, leaves_of, structure_of
from engine.spaces.observations import MASK, has_mask_key
from engine.spec import Experiment
from engine.trace.checkpoint_choice import Which
from engine.trace.checkpoint_file import CheckpointInfo
from engine.trained.agent_values import AgentValues, Masks
from engine.trained.load import Trained, load_trained
from engine.trained.run import TrainedRun, read_trained


def load_policy(run: str | Path, *, checkpoint: Which = "last", trust: bool = False) -> Policy:
    """Loads the policy that a run has trained.

    The environment is made once, to know its spaces. Modules that the run's experiment names, such
    as that of an own environment, are code: they are used if they have been imported already, or
    if you say that you trust the run.

    Args:
        run: Its directory, such as `results/20260131-235959-cartpole_ppo`.
        checkpoint: `last`; `best`, by the return that it was written at; or a weights version.
        trust: Whether to import the modules that the experiment names.

    Raises:
        ConfigError: There is no such run or checkpoint, it does not fit its environment, or it
            names modules that are neither imported nor trusted.
    """
    found = read_trained(Path(run), checkpoint)
    if not trust:
        _refuse_modules(found)
    return Policy(load_trained(found))


def _refuse_modules(run: TrainedRun) -> None:
    names = dict.fromkeys(name for name, _ in run.experiment.named_modules)
    unknown = [name for name in names if name not in sys.modules]
    if unknown:
        raise ConfigError(
            f"its experiment names modules that would be imported: {', '.join(unknown)}",
            where=str(run.path),
            fix=f"import {unknown[0]} before, or if you trust this run, pass trust=True",
        )


class Policy:
    """Chooses actions for one observation, or for a batch of them.

    With a memory (`is_recurrent`) a call is one step of an episode: call `reset` where episodes
    begin, and keep the batch's size in between.

    Of a team, observations and actions are dicts by the name of the agent, as PettingZoo's parallel
    API has them: whoever is not there is left out.

    Args:
        trained: The network.
        seed: Of the random numbers of sampled actions.
    """

    def __init__(self, trained: Trained, seed: int = 0) -> None:
        self._trained = trained
        self._generator = torch.Generator().manual_seed(seed)
        self._sample = sampling(trained.algorithm, self._generator)
        env = trained.experiment.env
        self._structure = ActionStructure(trained.action_space, env.scale_actions)
        squashes = env.squash_actions
        self._squashed = squashed_columns(trained.spaces.action) if squashes else None
        self._leaves = leaves_of(trained.observation_space, "observation")
        self._batch: _Batch | None = None
        self._agents = AgentValues(trained) if trained.spaces.team is not None else None

    def __call__(
        self,
        observation: Structure,
        *,
        action_mask: npt.ArrayLike | Masks | None = None,
        sampled: bool = False,
    ) -> Structure:
        """Chooses an action.

        Args:
            observation: A value of `observation_space`; or of a batch, with an axis [B, ...] in
                front of each of its arrays.
            action_mask: The valid choices, [choices] or [B, choices], if the environment gives
                masks in its info. A mask in a Dict observation is found there. Of a team, by the
                name of the agent.
            sampled: Sample as in training, exploration included, instead of the best known action.

        Returns:
            A value of `action_space`, in its dtypes and ranges; or of a batch of them.

        Raises:
            ValueError: The observation has another structure or shape, a mask is missing, or the
                batch has another size than before although the policy remembers.
            RunFailedError: A mask has no valid choice.
        """
        if self._agents is None:
            if isinstance(action_mask, Mapping):
                raise ValueError("the action_mask of one agent is an array")
            return self._choose(observation, action_mask, sampled)
        joint, mask = self._agents.together(observation, action_mask)
        return self._agents.apart(self._choose(joint, mask, sampled), observation)

    def _choose(
        self, observation: Structure, action_mask: npt.ArrayLike | None, sampled: bool
    ) -> Structure:
        """An action for a value of the space that the environment declares."""
        observation, num_envs = self._batched(observation)
        batch = self._batch_of(num_envs or 1)
        batch.runner.choose = self._sample if sampled else self._trained.algorithm.act_greedily
        arrays = batch.observed.arrays(observation, self._info(action_mask, num_envs))
        action = self._structure(self._in_range(batch.runner.act(arrays)))
        if num_envs is not None:
            return action
        return _first(self._trained.action_space, action)

    def reset(self, which: Sequence[bool] | npt.NDArray[np.bool_] | None = None) -> None:
        """Forgets what was seen: new episodes begin.

        Args:
            which: Of a batch, those whose episode begins, bool [B]; all without it.
        """
        if which is None or self._batch is None:
            self._batch = None
            return
        self._batch.runner.reset(np.asarray(which, np.bool_))

    def seed(self, seed: int) -> None:
        """Seeds the random numbers of sampled actions."""
        self._generator.manual_seed(seed)

    @property
    def observation_space(self) -> AnySpace:
        """Of one environment, as it declares it; of a team, what each agent observes."""
        if self._agents is not None:
            return self._agents.observation_space
        return self._trained.observation_space

    @property
    def action_space(self) -> AnySpace:
        """Of one environment, as it declares it."""
        return self._trained.action_space

    @property
    def experiment(self) -> Experiment:
        """What the run was asked to do."""
        return self._trained.experiment

    @property
    def checkpoint(self) -> CheckpointInfo:
        """Where the weights come from: version, counters, return."""
        return self._trained.info

    @property
    def is_recurrent(self) -> bool:
        """Whether it remembers earlier observations of an episode."""
        return self._trained.runner(1).is_recurrent

    def _batched(self, observation: Structure) -> tuple[Structure, int | None]:
        """A batch of observations, and how many were given; None if it was a single one."""
        space = self._trained.observation_space
        try:
            arrays = [np.asarray(value) for value in leaf_values(space, observation)]
        except (KeyError, TypeError, IndexError, ValueError) as error:
            raise ValueError(f"the observation is no value of {space}: {error!r}") from error
        shapes = [tuple(leaf.space.shape or ()) for leaf in self._leaves]
        if all(array.shape == shape for array, shape in zip(arrays, shapes, strict=True)):
            return structure_of(space, iter([array[None] for array in arrays])), None
        num_envs = arrays[0].shape[0] if arrays[0].ndim else 0
        for leaf, array, shape in zip(self._leaves, arrays, shapes, strict=True):
            if num_envs == 0 or array.shape != (num_envs, *shape):
                name = ".".join(leaf.path) or "the observation"
                raise ValueError(
                    f"{name} has shape {array.shape}; expected {shape} or (B, *{shape})"
                )
        return structure_of(space, iter(arrays)), num_envs

    def _info(self, mask: npt.ArrayLike | None, num_envs: int | None) -> dict[str, object]:
        """What an environment's info would have."""
        trained = self._trained
        reads = trained.spaces.has_action_mask and not has_mask_key(trained.observation_space)
        if mask is None and not reads:
            return {}
        if mask is None or not reads:
            why = "the policy needs" if reads else "the policy does not take"
            raise ValueError(f"{why} an action_mask beside the observation")
        given = np.asarray(mask)
        return {MASK: given[None] if num_envs is None else given}

    def _batch_of(self, num_envs: int) -> _Batch:
        """What is kept between calls with batches of one size."""
        batch = self._batch
        if batch is not None and batch.num_envs == num_envs:
            return batch
        if batch is not None and batch.runner.is_recurrent:
            raise ValueError(
                f"a batch of {num_envs} after one of {batch.num_envs}: the policy remembers each"
                " of them; call reset() where new episodes begin"
            )
        trained, env = self._trained, self._trained.experiment.env
        observed = Observed(self._trained.observation_space, trained.spaces, num_envs, env.id)
        self._batch = _Batch(num_envs, observed, trained.runner(num_envs))
        return self._batch

    def _in_range(self, flat: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """What `make_vector_env` does to actions before their structure is made."""
        if not np.isfinite(flat).all():
            raise ValueError("the policy's output is not finite for this observation")
        if self._squashed is None:
            return flat
        rows = flat.reshape(len(flat), -1)
        return np.where(self._squashed, np.tanh(rows), rows)


@dataclass(frozen=True)
class _Batch:
    """What is kept for batches of B observations."""

    num_envs: int
    observed: Observed
    runner: PolicyRunner


def _first(space: AnySpace, batch: Structure) -> Structure:
    """The first of a batch of actions: a number of a Discrete, otherwise arrays, also of rank 0."""
    leaves = zip(leaves_of(space, "action"), leaf_values(space, batch), strict=True)
    is_number = gymnasium.spaces.Discrete
    return structure_of(
        space,
        iter([v[0] if isinstance(leaf.space, is_number) else v[0, ...] for leaf, v in leaves]),
    )
