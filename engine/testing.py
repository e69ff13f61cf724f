"""Fakes for tests; nothing else imports this.

Importing it registers `SCRIPTED_ENV`, a vector environment whose every number can be predicted:
environment i counts its steps, and its episodes last `shortest_episode + i` of them. Episodes of
even environments are terminated, those of odd ones truncated.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode, VectorEnv

from engine.algorithms.base import Spaces
from engine.messages import RolloutArrived
from engine.roles.commands import Command, Send
from engine.rollout import Layout, Rollout, RolloutInfo, Weights
from engine.spaces.leaves import AnySpace
from engine.spaces.team import Team, joint_action, joint_observation, shared_policies
from engine.spec import (
    CheckpointSpec,
    EnvSpec,
    Experiment,
    NetworkSpec,
    Scalar,
    StalenessSpec,
    StopSpec,
)

SCRIPTED_ENV = "TianJi/Scripted-v0"
NUM_ACTIONS = 2
RESET_REWARD = -7.0

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]


class ScriptedVectorEnv(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """Deterministic environments in next-step mode.

    The observation is (environment, episode, steps taken in the episode, offset from the seed);
    the reward of an episode's n-th step is n, plus `bonus` if the action was 1. A step that only
    resets gives `RESET_REWARD`, which must not be counted.

    Args:
        num_envs: How many.
        shortest_episode: Length of environment 0's episodes; environment i's last i steps longer.
        bonus: What action 1 earns.
    """

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(self, num_envs: int, shortest_episode: int = 3, bonus: float = 0.0) -> None:
        self.num_envs = num_envs
        self.single_observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (4,), np.float32)
        self.single_action_space = gymnasium.spaces.Discrete(NUM_ACTIONS)
        self.observation_space = gymnasium.vector.utils.batch_space(
            self.single_observation_space, num_envs
        )
        self.action_space = gymnasium.vector.utils.batch_space(self.single_action_space, num_envs)
        self._lengths = shortest_episode + np.arange(num_envs)
        self._bonus = bonus
        self._offset = 0.0
        self._episode = np.zeros(num_envs, np.int64)
        self._age = np.zeros(num_envs, np.int64)
        self._has_ended = np.zeros(num_envs, bool)
        self.num_env_steps = 0
        """Steps that were not resets, over all environments; what an actor should report."""
        self.num_vector_steps = 0

    def reset(
        self,
        *,
        seed: int | list[int] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[FloatArray, dict[str, Any]]:
        if seed is not None:
            self._offset = float(np.random.default_rng(seed).uniform(-1.0, 1.0))
        for array in (self._episode, self._age, self._has_ended):
            array.fill(0)
        return self._observe(), {}

    def step(
        self, actions: np.ndarray
    ) -> tuple[FloatArray, FloatArray, BoolArray, BoolArray, dict[str, Any]]:
        resets = self._has_ended
        self._episode += resets
        self._age = np.where(resets, 0, self._age + 1)
        reward = np.where(resets, RESET_REWARD, self._age + self._bonus * (actions == 1))
        self._has_ended = ~resets & (self._age >= self._lengths)
        self.num_env_steps += int(np.count_nonzero(~resets))
        self.num_vector_steps += 1
        is_even = np.arange(self.num_envs) % 2 == 0
        terminated, truncated = self._has_ended & is_even, self._has_ended & ~is_even
        return self._observe(), reward.astype(np.float32), terminated, truncated, {}

    def _observe(self) -> FloatArray:
        index, offset = np.arange(self.num_envs), np.full(self.num_envs, self._offset)
        return np.stack([index, self._episode, self._age, offset], axis=1).astype(np.float32)


gymnasium.register(SCRIPTED_ENV, vector_entry_point=f"{__name__}:ScriptedVectorEnv")


def discrete_spaces(num_inputs: int = 4, num_actions: int = 3) -> Spaces:
    """Spaces with float32 observations [num_inputs] and discrete actions."""
    return Spaces(
        gymnasium.spaces.Box(-np.inf, np.inf, (num_inputs,), np.float32),
        gymnasium.spaces.Discrete(num_actions),
    )


def team_spaces(
    observations: Mapping[str, AnySpace],
    actions: Mapping[str, AnySpace],
    policies: Mapping[str, Sequence[str]] | None = None,
    state: gymnasium.spaces.Box | None = None,
    *,
    has_action_mask: bool = False,
) -> Spaces:
    """Spaces of a team; by default all agents share the policy `shared`."""
    members = policies or {"shared": tuple(observations)}
    team = Team(tuple(observations), shared_policies(members, observations, actions), state)
    joint = joint_observation(observations, state)
    return Spaces(joint, joint_action(actions), has_action_mask, team)


def make_experiment(
    *,
    seed: int = 0,
    actors: int = 2,
    groups: int = 1,
    env: EnvSpec | None = None,
    staleness: StalenessSpec | None = None,
    stop: StopSpec | None = None,
    checkpoint: CheckpointSpec | None = None,
    policy: str = "local",
    **hyperparameters: Scalar,
) -> Experiment:
    """A small PPO experiment: rollouts of 10 steps in 4 environments, batches of 2 rollouts."""
    algorithm: dict[str, Scalar] = {
        "name": "ppo",
        "rollout_steps": 10,
        "batch_steps": 80,
        "minibatch_steps": 40,
        "num_epochs": 1,
    }
    return Experiment(
        name="test",
        seed=seed,
        env=env or EnvSpec(id=SCRIPTED_ENV, num_envs=4),
        algorithm={**algorithm, **hyperparameters},
        network=NetworkSpec(hidden_sizes=(8,)),
        policy=policy,
        actors=actors,
        groups=groups,
        staleness=staleness or StalenessSpec(),
        stop=stop or StopSpec(env_steps=1000),
        checkpoint=checkpoint or CheckpointSpec(every_s=None),
    )


def make_rollout(
    *,
    actor: int = 0,
    epoch: int = 0,
    sequence: int = 0,
    ticket: int = 0,
    version: int = 0,
    env_steps: int = 8,
    total: int | None = None,
    layout: Layout | None = None,
) -> Rollout:
    """A rollout; `total` defaults to the count of an actor whose rollouts are all equal."""
    info = RolloutInfo(
        actor=actor,
        epoch=epoch,
        sequence=sequence,
        ticket=ticket,
        version_min=version,
        version_max=version,
        num_env_steps=env_steps,
        total_env_steps=env_steps * (sequence + 1) if total is None else total,
        start_s=1.0,
        end_s=2.0,
    )
    return Rollout(info, (layout or Layout((), 0, 0)).allocate())


def rollout_arrival(held_version: int = 0, **description: int) -> RolloutArrived:
    """The message that carries a rollout from an actor to a buffer; see `make_rollout`."""
    return RolloutArrived(make_rollout(**description), held_version)  # type: ignore[arg-type]


def make_weights(version: int, num_bytes: int = 8) -> Weights:
    """Weights of this version: zeros, uint8 [num_bytes]."""
    return Weights(version, np.zeros(num_bytes, np.uint8))


M = TypeVar("M")


def sent(commands: Iterable[Command], kind: type[M], to: str | None = None) -> list[M]:
    """The messages of one kind that `commands` send, to one address or to any."""
    return [
        command.message
        for command in commands
        if isinstance(command, Send)
        and isinstance(command.message, kind)
        and to in (None, command.to)
    ]


def only(commands: Iterable[Command], kind: type[M]) -> M:
    """The one command of this kind."""
    found = [command for command in commands if isinstance(command, kind)]
    assert len(found) == 1, f"{len(found)} of {kind.__name__} in {commands}"
    return found[0]


def has(commands: Iterable[Command], kind: type[object]) -> bool:
    """Whether there is a command of this kind."""
    return any(isinstance(command, kind) for command in commands)


__all__ = [
    "NUM_ACTIONS",
    "RESET_REWARD",
    "SCRIPTED_ENV",
    "ScriptedVectorEnv",
    "discrete_spaces",
    "has",
    "make_experiment",
    "make_rollout",
    "make_weights",
    "only",
    "rollout_arrival",
    "sent",
    "team_spaces",
]
