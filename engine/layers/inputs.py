"""What a policy acts upon: an observation, and where there are any, an action mask and a memory.

An environment with one array as its observation needs nothing of this: its observation is one
tensor wherever it occurs. Otherwise an observation is a dict of tensors, one for each leaf.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

from torch import Tensor

from engine.rollout import Field
from engine.spaces.observations import MASK, OBSERVATION

Observation: TypeAlias = Tensor | Mapping[str, Tensor]
"""One tensor, or one for each leaf by its path, such as `sensors.camera`."""
Inputs: TypeAlias = Tensor | Mapping[str, Tensor]
"""What `act` gets: one tensor if that is all, or tensors by the names of their fields."""

STATE = "state"
"""The field of a policy's memory: its state before a step."""


def is_observation(name: str) -> bool:
    """Whether a field is an observation, or one leaf of it."""
    return name == OBSERVATION or name.startswith(f"{OBSERVATION}.")


def input_names(fields: Iterable[Field]) -> tuple[str, ...]:
    """The fields of a rollout that `act` reads: observations, a mask, a memory's state."""
    names = [field.name for field in fields]
    return tuple(name for name in names if is_observation(name) or name in (MASK, STATE))


def observation_of(values: Inputs, prefix: str = OBSERVATION) -> Observation:
    """The observation among tensors by field name.

    Args:
        values: As `act` gets them, or a batch.
        prefix: `observation`, or `next_observation` in samples from replay.
    """
    if isinstance(values, Tensor):
        return values
    if prefix in values:
        return values[prefix]
    start = len(prefix) + 1
    return {
        name[start:]: tensor for name, tensor in values.items() if name.startswith(f"{prefix}.")
    }


def mask_of(values: Inputs) -> Tensor | None:
    """The action mask among what `act` gets, bool [B, choices]; None without one."""
    return None if isinstance(values, Tensor) else values.get(MASK)


def map_leaves(function: Callable[[Tensor], Tensor], observation: Observation) -> Observation:
    """Applies a function to every leaf."""
    if isinstance(observation, Tensor):
        return function(observation)
    return {name: function(leaf) for name, leaf in observation.items()}
