"""Spaces of single arrays as JSON can hold them."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from gymnasium import spaces

from engine.spaces.leaves import LeafSpace


class SpaceDocument(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One array of an action space. Bounds are one number if all entries have the same; a bound
    that there is not is null. `n`, `nvec` and `start` are those of Gymnasium's spaces."""

    kind: str
    low: Any = msgspec.UNSET
    high: Any = msgspec.UNSET
    n: Any = msgspec.UNSET
    nvec: Any = msgspec.UNSET
    start: Any = msgspec.UNSET


def space_document(space: LeafSpace) -> SpaceDocument:
    """The space of one array."""
    told = {
        name: _short(getattr(space, name))
        for name in ("low", "high", "n", "nvec", "start")
        if hasattr(space, name) and not isinstance(space, spaces.MultiBinary)
    }
    return SpaceDocument(kind=type(space).__name__, **told)


def _short(value: object) -> object:
    """Numbers in lists, or one number if all are equal; JSON has null for infinite ones."""
    values = np.asarray(value)
    is_equal = values.size > 0 and bool((values == values.flat[0]).all())
    return values.ravel()[0].item() if is_equal else values.tolist()
