"""The leaves of a space: `Dict` and `Tuple`, nested in any way, taken apart into single arrays.

Leaves come in Gymnasium's own order. Their paths name fields of a rollout and encoders of a
network: the leaf `camera` below `sensors` has the path ("sensors", "camera"); the entries of a
`Tuple` are "0", "1" and so on.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import gymnasium
import numpy as np
from gymnasium import spaces

from engine.errors import ConfigError

LeafSpace: TypeAlias = spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary
AnySpace: TypeAlias = gymnasium.Space[Any]
Structure: TypeAlias = Any
"""A value of a space: an array of a leaf, a dict of structures, or a tuple of them."""

KINDS = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)
INSTEAD: dict[type[AnySpace], str] = {
    spaces.Text: "a MultiDiscrete with a code for each character or word",
    spaces.Graph: "Boxes padded to a fixed number of nodes and links, and a MultiBinary that marks"
    " those which exist",
    spaces.Sequence: "a Box padded to a fixed length, and a Discrete for the length",
    spaces.OneOf: "a Dict of all alternatives, and a Discrete that says which one counts",
}
"""What to use in place of the spaces that have no fixed size."""
SUPPORTED = "a Box, Discrete, MultiDiscrete or MultiBinary, or a Dict or Tuple of them"


@dataclass(frozen=True, eq=False)
class Leaf:
    """One array of a space.

    Attributes:
        path: Keys from the root to it; empty if the whole space is one array.
        space: Box, Discrete, MultiDiscrete or MultiBinary, with at least one entry.
    """

    path: tuple[str, ...]
    space: LeafSpace


def leaves_of(space: AnySpace, what: str) -> tuple[Leaf, ...]:
    """Takes a space apart.

    Args:
        space: Of one environment.
        what: "observation" or "action", for errors.

    Raises:
        ConfigError: A part of it has no fixed size, is of an unknown kind or is empty; or two
            leaves would have the same path.
    """
    leaves = tuple(_leaves_below(space, (), what))
    (path, count), *_ = Counter(leaf.path for leaf in leaves).most_common(1)
    if count > 1:
        raise ConfigError(
            f"the {what} space has {count} parts with the name {'.'.join(path)!r}",
            where="env.id",
            fix="use keys of a Dict that differ as text",
        )
    return leaves


def leaf_names(leaves: Sequence[Leaf], prefix: str) -> tuple[str, ...]:
    """Names of the leaves' fields: `prefix` for a space that is one array, otherwise `prefix.a.b`.

    Dots and percent signs in keys become %2E and %25, so names differ whenever paths do.
    """
    return tuple(".".join((prefix, *map(_escaped, leaf.path))) for leaf in leaves)


def leaf_values(space: AnySpace, value: Structure) -> list[Any]:
    """The values of the leaves, in the order of `leaves_of`; also of batched spaces' values."""
    if isinstance(space, spaces.Dict):
        return [v for key, part in space.items() for v in leaf_values(part, value[key])]
    if isinstance(space, spaces.Tuple):
        parts = zip(space.spaces, value, strict=True)
        return [v for part, its_value in parts for v in leaf_values(part, its_value)]
    return [value]


def structure_of(space: AnySpace, values: Iterator[Any]) -> Structure:
    """The inverse of `leaf_values`: puts values of leaves, in order, where the space has them."""
    if isinstance(space, spaces.Dict):
        return {key: structure_of(part, values) for key, part in space.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(structure_of(part, values) for part in space.spaces)
    return next(values)


def identity_of(space: AnySpace, what: str) -> list[object]:
    """All that distinguishes this space from others with the same layout: kinds, bounds, starts and
    numbers of choices, as values that JSON can hold."""
    return [
        (
            leaf.path,
            type(leaf.space).__name__,
            leaf.space.shape,
            str(leaf.space.dtype),
            [
                np.asarray(getattr(leaf.space, name)).tobytes().hex()
                for name in ("low", "high", "n", "nvec", "start")
                if hasattr(leaf.space, name)
            ],
        )
        for leaf in leaves_of(space, what)
    ]


def num_entries(space: LeafSpace) -> int:
    """Numbers in one value of a leaf."""
    return math.prod(space.shape or ())


def _leaves_below(space: AnySpace, path: tuple[str, ...], what: str) -> Iterator[Leaf]:
    if isinstance(space, spaces.Dict | spaces.Tuple):
        parts = space.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)
        if not space.spaces:
            raise _refused(space, path, what, "is empty")
        for key, part in parts:
            yield from _leaves_below(part, (*path, str(key)), what)
    elif not isinstance(space, KINDS):
        raise _refused(space, path, what, "is not supported")
    elif not num_entries(space):
        raise _refused(space, path, what, "has no entries")
    else:
        yield Leaf(path, space)


def _refused(space: AnySpace, path: tuple[str, ...], what: str, why: str) -> ConfigError:
    place = f"the part {'.'.join(path)!r} of the {what} space" if path else f"the {what} space"
    instead = next((text for kind, text in INSTEAD.items() if isinstance(space, kind)), SUPPORTED)
    drop = "drop it: env.wrappers: [{name: FilterObservation, filter_keys: [the others]}]; or "
    helps = drop if len(path) == 1 and what == "observation" else ""
    wrapper = "ActionWrapper" if what == "action" else "ObservationWrapper"
    return ConfigError(
        f"{place} is a {type(space).__name__} that {why}: {space}",
        where="env.id",
        fix=f"{helps}register the environment wrapped in a gymnasium.{wrapper} that has {instead};"
        " docs/extending.md shows how",
    )


def _escaped(key: str) -> str:
    return key.replace("%", "%25").replace(".", "%2E")
