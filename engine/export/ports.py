"""The inputs and outputs of an exported policy, by name.

    observation                 the observation, as the environment returns it
    observation.camera ...      or each of its leaves
    action_mask                 the valid choices, where the environment gives masks
    state        next_state     the memory before and after the step, where there is one
                 action         the action, as the environment takes it
                 action.gear .. or each of its leaves

Every one has an axis of a batch in front. Of a team, observations are those of the agents,
`observation.agents.NAME`, and with a memory who is there, `observation.team.present`: what else is
observed of it is for learning.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from gymnasium import spaces

from engine.layers.inputs import STATE, input_names
from engine.spaces.action_parts import parts_of
from engine.spaces.leaves import AnySpace, LeafSpace, leaf_names, leaves_of
from engine.spaces.observations import MASK, OBSERVATION, observation_leaves
from engine.spaces.team import AGENTS, PRESENT, TEAM
from engine.trained.load import Trained

ACTION = "action"
NEXT_STATE = "next_state"
Kind: TypeAlias = Literal["observation", "action_mask", "state", "action", "next_state"]


@dataclass(frozen=True)
class Port:
    """One array that a policy takes or gives.

    Attributes:
        name: Unique among the inputs and outputs.
        kind: What it is.
        dtype: NumPy name.
        shape: Of one row, without the axis of the batch.
        path: Keys from the whole observation or action to it; empty if it is the whole.
        space: Of an action's leaf.
    """

    name: str
    kind: Kind
    dtype: str
    shape: tuple[int, ...]
    path: tuple[str, ...] = ()
    space: LeafSpace | None = None

    @property
    def largest_bound(self) -> float:
        """The largest absolute bound of a Box, at least 1: the size of its values."""
        if not isinstance(self.space, spaces.Box):
            return 1.0
        bounds = np.abs(np.stack((self.space.low, self.space.high)).astype(np.float64))
        return float(bounds.max(initial=1.0, where=np.isfinite(bounds)))


@dataclass(frozen=True)
class Ports:
    """All inputs, in the order in which a policy takes them, and all outputs.

    Attributes:
        inputs: Observations, then a mask, then a state, as far as there are any.
        outputs: Leaves of the action, then the next state if there is one.
    """

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]

    @property
    def observed(self) -> tuple[Port, ...]:
        """The inputs that an environment gives."""
        return tuple(port for port in self.inputs if port.kind != "state")

    @property
    def actions(self) -> tuple[Port, ...]:
        """The outputs that an environment takes."""
        return tuple(port for port in self.outputs if port.kind == "action")

    @property
    def state(self) -> Port | None:
        """The memory, if there is one."""
        return next((port for port in self.inputs if port.kind == "state"), None)


def ports_of(trained: Trained) -> Ports:
    """The inputs and outputs of a trained policy."""
    by_name = {field.name: field for field in trained.fields}
    leaves = observation_leaves(trained.spaces.observation)
    inputs, memory = [], []
    for name in acted_upon(trained):
        if name == STATE:
            memory.append(Port(STATE, "state", "float32", by_name[name].shape))
        elif name == MASK:
            inputs.append(
                Port(MASK, "action_mask", "bool", (parts_of(trained.action_space).num_logits,))
            )
        else:
            leaf = leaves[name]
            inputs.append(_of_leaf(name, "observation", leaf.space, leaf.path))
    nexts = [Port(NEXT_STATE, "next_state", port.dtype, port.shape) for port in memory]
    return Ports((*inputs, *memory), (*action_ports(trained.action_space), *nexts))


def acted_upon(trained: Trained) -> tuple[str, ...]:
    """The fields of a rollout that decide an action."""
    names = input_names(trained.fields)
    if trained.spaces.team is None:
        return names
    others = {MASK, STATE} | ({f"{OBSERVATION}.{TEAM}.{PRESENT}"} if STATE in names else set())
    of_agents = f"{OBSERVATION}.{AGENTS}."
    return tuple(name for name in names if name in others or name.startswith(of_agents))


def action_ports(space: AnySpace) -> tuple[Port, ...]:
    """The leaves of an action, in order; of a lone one the name is `action`."""
    leaves = leaves_of(space, ACTION)
    names = (ACTION,) if len(leaves) == 1 else leaf_names(leaves, ACTION)
    return tuple(
        _of_leaf(name, "action", leaf.space, leaf.path)
        for name, leaf in zip(names, leaves, strict=True)
    )


def _of_leaf(name: str, kind: Kind, space: LeafSpace, path: tuple[str, ...]) -> Port:
    return Port(name, kind, str(np.dtype(space.dtype)), tuple(space.shape or ()), path, space)
