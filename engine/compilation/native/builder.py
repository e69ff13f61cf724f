"""Collects operations, and gives them memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from engine.compilation.native.expressions import converted
from engine.compilation.native.places import (
    Access,
    AxisReduction,
    Buffer,
    Elementwise,
    Operation,
    StridedPlace,
    UnsupportedError,
    extent,
    place_like,
    product_of,
)


class Builder:
    """Collects operations, and the buffers that they need.

    Attributes:
        operations: In the order of execution.
    """

    def __init__(self) -> None:
        self.operations: list[Operation] = []

    def scratch(self, tensor: Tensor) -> StridedPlace:
        """Memory for a tensor."""
        return place_like(tensor, Buffer(tensor.dtype, extent(tensor)))

    def contiguous(self, sizes: Sequence[int], dtype: torch.dtype) -> StridedPlace:
        """Memory for a contiguous tensor of these sizes."""
        return self.scratch(torch.empty(tuple(sizes), dtype=dtype, device="meta"))

    def compute(
        self,
        text: str,
        operands: Sequence[StridedPlace | Access],
        to: StridedPlace,
        reduction: str | None = None,
    ) -> StridedPlace:
        """Adds one value for each entry of `to`; operands are broadcast to it. A sum of one value
        is that value."""
        sizes = to.sizes
        if product_of(sizes) == 1:
            reduction = None
        if 0 in sizes:  # as a part of a `cat` may be
            if reduction is not None:
                raise UnsupportedError("a sum without entries")
            return to
        reads = tuple(
            operand if isinstance(operand, Access) else Access(operand.expanded(sizes))
            for operand in operands
        )
        self.operations.append(Elementwise(reads, text, to, reduction))
        return to

    def copy(self, source: StridedPlace, to: StridedPlace) -> StridedPlace:
        """Copies entries, in the type of `to`."""
        return self.compute(converted("{0}", source.dtype, to.dtype), [source], to)

    def packed(self, place: StridedPlace) -> StridedPlace:
        """The same entries, contiguous; copied if they are not."""
        if place.is_contiguous:
            return place
        return self.copy(place, self.contiguous(place.sizes, place.dtype))

    def reduce(
        self, source: StridedPlace, axes: Sequence[int], kind: str, to: StridedPlace
    ) -> None:
        """Adds a sum, or the like.

        Args:
            source: What is summed.
            axes: Over which axes.
            kind: A key of `COMBINED`.
            to: Of the sizes of `source`, with 1 for these axes.
        """
        if 0 in source.sizes:
            raise UnsupportedError("a sum without entries")
        strides = tuple(0 if a in axes else s for a, s in enumerate(to.strides))
        out = StridedPlace(to.buffer, to.offset, source.sizes, strides)
        number = product_of([source.sizes[axis] for axis in axes])
        if number <= _FEW:
            each = [*_along(source, axes)]
            self.compute(_folded(kind, len(each)), each, to)
        elif number == source.num_entries:
            self.compute("{0}", [source], out, kind)
        else:
            self.operations.append(AxisReduction(source, out, kind))


_FEW = 16
"""Entries that are summed in one expression."""
COMBINED: Mapping[str, str] = {
    "sum": "{0} + {1}",
    "and": "{0} & {1}",
    "or": "{0} | {1}",
    "max": "larger({0}, {1})",
    "min": "smaller({0}, {1})",
}
"""How two values become one, in a sum and the like."""


def _along(place: StridedPlace, axes: Sequence[int]) -> list[StridedPlace]:
    """The parts of a place at each position of these axes, of size 1 there."""
    parts = [place]
    for axis in axes:
        parts = [part.slice(axis, i, 1) for part in parts for i in range(place.sizes[axis])]
    return parts


def _folded(kind: str, count: int) -> str:
    text = "{0}"
    for position in range(1, count):
        text = COMBINED[kind].format(f"({text})", f"{{{position}}}")
    return text
