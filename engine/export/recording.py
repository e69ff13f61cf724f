"""Plays a trained policy for a while, and records what it was given and what it chose."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import gymnasium
import msgspec
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from engine.algorithms.base import Spaces
from engine.devices.visible import CPU
from engine.envs.actions.squash import squashed_columns
from engine.envs.actions.structure import ActionStructure
from engine.envs.make import make_vector_env
from engine.envs.observed import Arrays, Observed
from engine.envs.torch_envs import TORCH_ENVIRONMENTS, make_torch_env
from engine.errors import RunFailedError
from engine.executors.policy_runner import PolicyRunner
from engine.export.ports import NEXT_STATE, Ports, ports_of
from engine.layers.inputs import STATE, Inputs
from engine.spaces.observations import OBSERVATION
from engine.spec import EnvSpec
from engine.trained.load import Trained

NUM_ENVS = 4
NUM_STEPS = 64
Array: TypeAlias = npt.NDArray[Any]
Moment: TypeAlias = tuple[Arrays, npt.NDArray[np.bool_]]
"""What B environments show, by the name of its field, and which of them begin an episode."""


@dataclass(frozen=True)
class Recording:
    """T steps of B environments, played with the best known actions.

    Attributes:
        inputs: By the name of the input, [T, B, *shape], a state before each step included.
        starts: Where an episode begins, bool [T, B]; the state is zero there.
        outputs: What the engine chose and remembered, by the name of the output, [T, B, *shape].
    """

    inputs: Mapping[str, Array]
    starts: npt.NDArray[np.bool_]
    outputs: Mapping[str, Array]

    @property
    def num_steps(self) -> int:
        return int(self.starts.shape[0])

    @property
    def num_envs(self) -> int:
        return int(self.starts.shape[1])

    def moment(self, step: int) -> dict[str, Array]:
        """The inputs of one step, [B, *shape]."""
        return {name: values[step] for name, values in self.inputs.items()}

    def first(self, num_steps: int) -> Recording:
        """Its first steps."""
        return Recording(
            {name: values[:num_steps] for name, values in self.inputs.items()},
            self.starts[:num_steps],
            {name: values[:num_steps] for name, values in self.outputs.items()},
        )


def record(trained: Trained, num_envs: int = NUM_ENVS, num_steps: int = NUM_STEPS) -> Recording:
    """Plays B environments for T steps.

    Raises:
        ConfigError: They cannot be made.
        RunFailedError: What they show, or what the policy chooses, is not sound.
    """
    ports = ports_of(trained)
    engine = EngineActing(trained, ports)
    runner = PolicyRunner(engine.choose, trained.network, trained.fields, num_envs)
    rows: list[dict[str, Array]] = []
    starts: list[npt.NDArray[np.bool_]] = []
    with closing(_world(trained, num_envs)) as world:
        arrays, begin = world.reset()
        for _ in range(num_steps):
            flat = runner.act(arrays, begin)
            given = {port.name: np.array(arrays[port.name], port.dtype) for port in ports.observed}
            rows.append({**given, **engine.last, **engine.actions(flat)})
            starts.append(begin)
            arrays, begin = world.step(flat)
    return Recording(
        {port.name: np.stack([row[port.name] for row in rows]) for port in ports.inputs},
        np.stack(starts),
        {port.name: np.stack([row[port.name] for row in rows]) for port in ports.outputs},
    )


class EngineActing:
    """Acts as the engine does, and keeps the states before and after the last step.

    Args:
        trained: The algorithm.
        ports: Names of the results.

    Attributes:
        last: The two states by the names of their ports; empty without a memory.
    """

    def __init__(self, trained: Trained, ports: Ports) -> None:
        self._act = trained.algorithm.act_greedily
        self._ports = ports
        env = trained.experiment.env
        self._structure = ActionStructure(trained.action_space, env.scale_actions)
        self._squashed = squashed_columns(trained.action_space) if env.squash_actions else None
        self.last: dict[str, Array] = {}

    def choose(self, network: nn.Module, inputs: Inputs) -> Tensor | Mapping[str, Tensor]:
        """`Algorithm.act_greedily`."""
        chosen = self._act(network, inputs)
        if self._ports.state is not None:
            assert not isinstance(chosen, Tensor)
            assert not isinstance(inputs, Tensor)
            before, after = inputs[STATE], chosen[STATE]
            self.last = {STATE: before.numpy().copy(), NEXT_STATE: after.numpy().copy()}
        return chosen

    def actions(self, flat: Array) -> dict[str, Array]:
        """Flat actions [B, ...] as the environment takes them: its leaves by their port's name.

        Raises:
            RunFailedError: An entry is not finite.
        """
        if not np.isfinite(flat).all():
            raise RunFailedError(
                "the policy's output is not finite, so it cannot be exported",
                fix="export another checkpoint",
            )
        if self._squashed is not None:
            rows = flat.reshape(len(flat), -1)
            flat = np.where(self._squashed, np.tanh(rows), rows)
        leaves = self._structure.leaves(flat)
        names = [port.name for port in self._ports.actions]
        return {name: np.array(leaf) for name, leaf in zip(names, leaves, strict=True)}


class _World(Protocol):
    """B environments that take flat actions."""

    def reset(self) -> Moment: ...

    def step(self, flat: Array) -> Moment: ...

    def close(self) -> None: ...


def _world(trained: Trained, num_envs: int) -> _World:
    spec = msgspec.structs.replace(
        trained.experiment.env, num_envs=num_envs, num_splits=1, step_latency_ms=0.0
    )
    name, seed = spec.registered_id, trained.experiment.seed
    if name in TORCH_ENVIRONMENTS and name not in gymnasium.registry:
        return _TensorWorld(spec, seed)
    return _VectorWorld(spec, seed, trained.spaces)


class _VectorWorld:
    """Environments of `make_vector_env`."""

    def __init__(self, spec: EnvSpec, seed: int, spaces: Spaces) -> None:
        self._seed = seed
        self._env = make_vector_env(spec)
        space = self._env.single_observation_space
        self._of = Observed(space, spaces, spec.num_envs, spec.id)
        self._ended = np.zeros(spec.num_envs, np.bool_)

    def reset(self) -> Moment:
        observation, info = self._env.reset(seed=self._seed)
        return self._of.arrays(observation, info), np.ones_like(self._ended)

    def step(self, flat: Array) -> Moment:
        observation, _, terminated, truncated, info = self._env.step(flat)
        begins, self._ended = self._ended, terminated | truncated
        return self._of.arrays(observation, info, self._ended), begins

    def close(self) -> None:
        self._env.close()


class _TensorWorld:
    """Environments whose states are tensors."""

    def __init__(self, spec: EnvSpec, seed: int) -> None:
        self._seed = seed
        self._env = make_torch_env(spec, torch.device(CPU))
        self._ended = np.zeros(spec.num_envs, np.bool_)

    def reset(self) -> Moment:
        return {OBSERVATION: self._env.reset(self._seed).numpy()}, np.ones_like(self._ended)

    def step(self, flat: Array) -> Moment:
        observation, _, terminated, truncated = self._env.step(torch.from_numpy(flat))
        begins, self._ended = self._ended, (terminated | truncated).numpy()
        return {OBSERVATION: observation.numpy()}, begins

    def close(self) -> None:
        """Tensors need none."""
