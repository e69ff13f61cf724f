"""Which loops threads share, and in how many parts.

Each part is a span of the longest axis over which nothing is added up, so that every entry is
computed as by one thread, to the last bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MANY = 1 << 15
"""Iterations of a loop that threads share: some 10 us, ten times what sharing costs."""
_PARTS = 4
"""Of each thread: one that waits for a core holds up no more than a part."""
_ENTRIES = 16
"""A part of a row is a multiple of these: a line of the cache, for most types."""


@dataclass(frozen=True)
class Parts:
    """Parts of a loop.

    Attributes:
        axis: It is cut along this one.
        size: Of that axis.
        length: Of each part but the last, which may be shorter.
    """

    axis: int
    size: int
    length: int


def parts_of(
    sizes: Sequence[int], axes: Sequence[int], num_iterations: int, num_threads: int
) -> Parts | None:
    """How threads share a loop; None: they do not.

    Args:
        sizes: Of its axes.
        axes: Those that it can be cut along.
        num_iterations: Of the loop.
        num_threads: So many may share it.
    """
    if num_threads < 2 or num_iterations < MANY or not axes:
        return None
    axis = max(axes, key=lambda each: sizes[each])
    size = sizes[axis]
    unit = _ENTRIES if axis == len(sizes) - 1 else 1
    num_units = -(-size // unit)
    length = -(-num_units // (_PARTS * num_threads)) * unit
    return Parts(axis, size, length) if length < size else None
