"""What a policy chooses in an action space: categorical entries and real numbers.

    Dict(gear=Discrete(3), lights=MultiBinary(2), steer=Box(-1, 1, (2,)))

has the categorical entries (3, 2, 2) and two reals. In a rollout its action is one row: the
categorical entries of all leaves, counted from 0, and then the reals of all leaves.
`engine.envs.actions` makes the environment's own action of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from gymnasium import spaces

from engine.errors import ConfigError
from engine.rollout import Field
from engine.spaces.leaves import AnySpace, LeafSpace, leaves_of, num_entries

EXACT_IN_FLOAT32 = 2**24
"""Integers below it are exact in float32."""


@dataclass(frozen=True)
class ActionParts:
    """The entries of a whole action space.

    Attributes:
        nvec: Number of choices of each categorical entry: one for a Discrete, each of a
            MultiDiscrete, and two for each of a MultiBinary.
        num_reals: Entries of Boxes.
        is_scalar: Whether the whole space is one Discrete, so that an action has no axis.
    """

    nvec: tuple[int, ...]
    num_reals: int
    is_scalar: bool = False

    @property
    def num_logits(self) -> int:
        """Also the number of entries of an action mask."""
        return sum(self.nvec)

    @property
    def num_outputs(self) -> int:
        """Of a policy: logits, then means. Noise for an action has as many entries."""
        return self.num_logits + self.num_reals


def parts_of(space: AnySpace) -> ActionParts:
    """Counts the entries of an action space.

    Raises:
        ConfigError: A policy cannot choose its actions.
    """
    leaves = leaves_of(space, "action")
    nvec = tuple(n for leaf in leaves for n in num_choices_of(leaf.space))
    boxes = [leaf.space for leaf in leaves if isinstance(leaf.space, spaces.Box)]
    num_reals = sum(num_entries(box) for box in boxes)
    if num_reals and max(nvec, default=0) > EXACT_IN_FLOAT32:
        raise ConfigError(
            f"an action with both a Box and a choice among {max(nvec):,} is not supported",
            where="env.id",
            fix=f"beside a Box, at most {EXACT_IN_FLOAT32:,} choices are",
        )
    return ActionParts(nvec, num_reals, is_scalar=isinstance(space, spaces.Discrete))


def leaf_columns(space: AnySpace) -> tuple[tuple[LeafSpace, slice], ...]:
    """Each leaf of an action space, in order, with its columns of the row described above.

    Raises:
        ConfigError: See `parts_of`.
    """
    next_choice, next_real = 0, len(parts_of(space).nvec)
    columns = []
    for leaf in leaves_of(space, "action"):
        size = num_entries(leaf.space)
        is_real = isinstance(leaf.space, spaces.Box)
        start = next_real if is_real else next_choice
        columns.append((leaf.space, slice(start, start + size)))
        if is_real:
            next_real += size
        else:
            next_choice += size
    return tuple(columns)


def num_choices_of(space: LeafSpace) -> tuple[int, ...]:
    """Number of choices of each categorical entry of a leaf; none in a Box."""
    match space:
        case spaces.Discrete():
            return (int(space.n),)
        case spaces.MultiDiscrete():
            return tuple(int(n) for n in np.ravel(space.nvec))
        case spaces.MultiBinary():
            return (2,) * num_entries(space)
        case _:
            return ()


def action_field(space: AnySpace) -> Field:
    """The field of actions in a rollout.

    Returns:
        int64 () for a Discrete, int64 (K,) for K categorical entries, float32 (D,) for D reals,
        float32 (K + D,) for both.
    """
    parts = parts_of(space)
    if parts.is_scalar:
        return Field("action", "int64")
    num_columns = len(parts.nvec) + parts.num_reals
    return Field("action", "float32" if parts.num_reals else "int64", (num_columns,))
