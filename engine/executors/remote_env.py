"""The two ends of a remote environment: the environments, and the actor that steps them.

Messages carry raw values without field names: both ends know the spaces. Sizes are checked before
anything is read.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from engine.algorithms.teams.agents import TeamView
from engine.blueprint import Blueprint
from engine.envs.make import make_vector_env
from engine.envs.observed import Observed
from engine.errors import RunFailedError
from engine.messages import StepTaken
from engine.roles.commands import Command, StepEnvironment
from engine.roles.events import EnvironmentStepped, Event, StepWanted
from engine.rollout import Layout
from engine.seeds import actor_seeds

Array: TypeAlias = npt.NDArray[Any]


StepResult: TypeAlias = tuple[Any, Array, Array, Array, dict[str, Any]]
"""The result of a Gymnasium vector environment; of a remote one, its observation and action mask
are arrays by the name of their field."""


class EnvironmentExecutor:
    """Steps the environments of a remote actor, or of several that act for different policies.

    Args:
        blueprint: The run.
        index: Their number.
        epoch: Its incarnation.
        resumes: How often the run has resumed a checkpoint.
    """

    is_busy = False

    def __init__(self, blueprint: Blueprint, index: int, epoch: int, resumes: int = 0) -> None:
        spec = blueprint.env
        self._env = make_vector_env(spec)
        space = self._env.single_observation_space
        self._of = Observed(space, blueprint.spaces, spec.num_envs, spec.id)
        self._action = blueprint.layout.field("action")
        self._observed = [blueprint.layout.field(name) for name in blueprint.observed]
        self._num_envs = blueprint.layout.num_envs
        self._columns = _columns_of_actors(blueprint)
        self._seed = actor_seeds(blueprint.experiment.seed, index, epoch, resumes)[1]

    def perform(self, command: Command) -> list[Event]:
        if not isinstance(command, StepEnvironment):
            raise RuntimeError(f"an environment cannot perform {type(command).__name__}")
        return [EnvironmentStepped(self._step(command))]

    def _step(self, command: StepEnvironment) -> StepTaken:
        if not any(command.actions):
            arrays = self._of.arrays(*self._env.reset(seed=self._seed))
            return StepTaken(number=command.number, observation=self._raw(arrays))
        action = self._joint_action(command.actions)
        observation, reward, terminated, truncated, info = self._env.step(action)
        arrays = self._of.arrays(observation, info, terminated | truncated)
        lives = info.get("lives")
        return StepTaken(
            number=command.number,
            observation=self._raw(arrays),
            reward=np.asarray(reward, np.float64).tobytes(),
            terminated=np.asarray(terminated, np.bool_).tobytes(),
            truncated=np.asarray(truncated, np.bool_).tobytes(),
            lives=b"" if lives is None else np.asarray(lives, np.int64).tobytes(),
            action=action.tobytes() if self._columns else b"",
        )

    def _joint_action(self, actions: Sequence[bytes]) -> Array:
        """What is stepped, [B, ...]: of each actor the columns that are its own."""
        shape = (self._num_envs, *self._action.shape)
        chosen = [_read(action, self._action.dtype, shape) for action in actions]
        if not self._columns:
            return chosen[0]
        joint = np.empty_like(chosen[0])
        for own, columns in zip(chosen, self._columns, strict=True):
            joint[:, columns] = own[:, columns]
        return joint

    def _raw(self, arrays: Mapping[str, Array]) -> bytes:
        """All fields, one after the other."""
        fields = self._observed
        return b"".join(
            np.ascontiguousarray(arrays[item.name], item.dtype).tobytes() for item in fields
        )

    def advance(self, budget_s: float) -> list[Event]:
        raise RuntimeError("an environment's commands are done when performed")

    def close(self) -> None:
        self._env.close()


def _columns_of_actors(blueprint: Blueprint) -> list[list[int]]:
    """The columns of the joint action that each actor chooses; empty if there is one actor."""
    if not blueprint.cut.is_apart:
        return []
    view = TeamView("environments", blueprint.spaces)
    return [view.columns_of(policy) for policy in view.team.policies]


class RemoteEnv:
    """The actor's end: a generator yields to ask, and continues when the answer has arrived.

    Args:
        layout: Of a rollout.
        observed: The fields that observations and masks go to.
    """

    def __init__(self, layout: Layout, observed: Sequence[str]) -> None:
        self._observed = [layout.field(name) for name in observed]
        self._action = layout.field("action")
        self._num_envs = layout.num_envs
        self._number = 0
        self._answer: StepTaken | None = None

    def close(self) -> None:
        """Nothing to release."""

    def take(self, taken: StepTaken) -> bool:
        """Accepts an answer; False if its request was abandoned."""
        if taken.number != self._number:
            return False
        self._answer = taken
        return True

    def reset(self) -> Generator[StepWanted, None, dict[str, Array]]:
        """The first observations by the name of their field, each [B, ...]."""
        taken = yield from self._ask(b"")
        return self._arrays(taken.observation)

    def step(self, action: Array) -> Generator[StepWanted, None, StepResult]:
        """One step with these actions, [B, ...]. Others act in the same environments if the info
        has `action`: what all of them chose."""
        taken = yield from self._ask(np.ascontiguousarray(action, self._action.dtype).tobytes())
        size = (self._num_envs,)
        info: dict[str, Any] = {}
        if taken.lives:
            info["lives"] = _read(taken.lives, "int64", size)
        if taken.action:
            whole = (self._num_envs, *self._action.shape)
            info["action"] = _read(taken.action, self._action.dtype, whole)
        return (
            self._arrays(taken.observation),
            _read(taken.reward, "float64", size),
            _read(taken.terminated, "bool", size),
            _read(taken.truncated, "bool", size),
            info,
        )

    def _ask(self, action: bytes) -> Generator[StepWanted, None, StepTaken]:
        self._number += 1
        while True:
            yield StepWanted(self._number, action)
            if self._answer is not None and self._answer.number == self._number:
                return self._answer

    def _arrays(self, data: bytes) -> dict[str, Array]:
        """Parses raw values of all fields; raises RunFailedError if their size does not match."""
        arrays, position = {}, 0
        for item in self._observed:
            shape = (self._num_envs, *item.shape)
            end = position + math.prod(shape) * np.dtype(item.dtype).itemsize
            arrays[item.name] = _read(data[position:end], item.dtype, shape)
            position = end
        if position != len(data):
            raise _of_wrong_size(len(data), position)
        return arrays


def _read(data: bytes, dtype: str, shape: tuple[int, ...]) -> Array:
    """Parses raw values; raises RunFailedError if their size does not match the shape."""
    wanted = int(np.prod(shape)) * np.dtype(dtype).itemsize
    if len(data) != wanted:
        raise _of_wrong_size(len(data), wanted)
    return np.frombuffer(data, dtype).reshape(shape)


def _of_wrong_size(found: int, wanted: int) -> RunFailedError:
    return RunFailedError(f"a step came with {found} bytes where {wanted} were expected")
