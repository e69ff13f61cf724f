"""How observations are kept in a rollout: one field for each leaf, and one for an action mask."""

from __future__ import annotations

import gymnasium
import numpy as np
from gymnasium import spaces

from engine.rollout import Field
from engine.spaces.leaves import AnySpace, Leaf, leaf_names, leaves_of

OBSERVATION = "observation"
MASK = "action_mask"
"""Key of a mask in an observation or in an environment's info, and name of its field."""


def observation_leaves(space: AnySpace) -> dict[str, Leaf]:
    """The leaves of an observation by the name of their field.

    A lone leaf is `observation`; of several, each is `observation.` and its path.

    Raises:
        ConfigError: A part of the space cannot be an observation.
    """
    leaves = leaves_of(space, OBSERVATION)
    names = (OBSERVATION,) if len(leaves) == 1 else leaf_names(leaves, OBSERVATION)
    return dict(zip(names, leaves, strict=True))


def observation_fields(space: AnySpace) -> tuple[Field, ...]:
    """The fields of s_0 to s_T, each leaf in its own dtype; reals in single precision.

    Raises:
        ConfigError: See `observation_leaves`.
    """
    return tuple(
        Field(name, stored_dtype(leaf.space), leaf.space.shape or (), extra_rows=1)
        for name, leaf in observation_leaves(space).items()
    )


def stored_dtype(space: AnySpace) -> str:
    """NumPy name of the dtype that a leaf's values have in a rollout."""
    is_real = np.issubdtype(space.dtype, np.floating)
    return "float32" if is_real else str(np.dtype(space.dtype))


def mask_field(num_choices: int) -> Field:
    """The field of action masks of s_0 to s_T: one bool for each choice of each entry."""
    return Field(MASK, "bool", (num_choices,), extra_rows=1)


def has_mask_key(space: AnySpace) -> bool:
    """Whether observations have a mask beside what is observed, as PettingZoo's have."""
    return isinstance(space, spaces.Dict) and MASK in space.spaces and len(space.spaces) > 1


def without_mask(space: AnySpace) -> AnySpace:
    """The space of what is observed, without the mask."""
    if not has_mask_key(space):
        return space
    assert isinstance(space, gymnasium.spaces.Dict)
    return spaces.Dict({key: part for key, part in space.items() if key != MASK})
