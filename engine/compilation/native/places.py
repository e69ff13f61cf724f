"""Where tensors lie: buffers, and the entries of a buffer that a tensor is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

TYPES: dict[torch.dtype, str] = {
    torch.float32: "float",
    torch.float64: "double",
    torch.int64: "int64_t",
    torch.int32: "int32_t",
    torch.int16: "int16_t",
    torch.int8: "int8_t",
    torch.uint8: "uint8_t",
    torch.bool: "bool",
}
"""In C++."""


class UnsupportedError(Exception):
    """This cannot be computed by loops; PyTorch's compiler can."""


@dataclass(frozen=True, eq=False)
class Buffer:
    """Memory of entries of one type.

    Attributes:
        dtype: Of its entries.
        size: Number of entries.
        argument: Which argument it is; None if it is scratch memory or constant.
        values: If it is constant.
    """

    dtype: torch.dtype
    size: int
    argument: int | None = None
    values: tuple[int, ...] = ()

    @property
    def is_scratch(self) -> bool:
        return self.argument is None and not self.values

    @property
    def num_bytes(self) -> int:
        return self.size * self.dtype.itemsize


@dataclass(frozen=True)
class StridedPlace:
    """A tensor: entries of a buffer.

    Attributes:
        buffer: Which one.
        offset: Of the first entry.
        sizes, strides: By axis, in entries.
    """

    buffer: Buffer
    offset: int
    sizes: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def dtype(self) -> torch.dtype:
        return self.buffer.dtype

    @property
    def span(self) -> range:
        """From its first entry to its last."""
        far = sum((n - 1) * stride for n, stride in zip(self.sizes, self.strides, strict=True))
        return range(self.offset, self.offset + far + 1)

    def overlaps(self, other: StridedPlace) -> bool:
        """Whether both possibly have an entry in common."""
        if self.buffer is not other.buffer:
            return False
        one, two = self.span, other.span
        return one.start < two.stop and two.start < one.stop

    def expanded(self, sizes: Sequence[int]) -> StridedPlace:
        """The same, as it is broadcast to these sizes."""
        missing = len(sizes) - len(self.sizes)
        own = [(1, 0)] * missing + list(zip(self.sizes, self.strides, strict=True))
        strides = tuple(
            0 if n == 1 and size != 1 else stride
            for (n, stride), size in zip(own, sizes, strict=True)
        )
        return StridedPlace(self.buffer, self.offset, tuple(sizes), strides)

    def slice(self, axis: int, start: int, size: int) -> StridedPlace:
        """So many entries of an axis."""
        sizes = (*self.sizes[:axis], size, *self.sizes[axis + 1 :])
        return StridedPlace(
            self.buffer, self.offset + start * self.strides[axis], sizes, self.strides
        )

    def without(self, axis: int, at: int = 0) -> StridedPlace:
        """The entries at this position of an axis, without the axis."""
        sizes = self.sizes[:axis] + self.sizes[axis + 1 :]
        strides = self.strides[:axis] + self.strides[axis + 1 :]
        return StridedPlace(self.buffer, self.offset + at * self.strides[axis], sizes, strides)

    @property
    def is_contiguous(self) -> bool:
        expected = 1
        for n, stride in zip(reversed(self.sizes), reversed(self.strides), strict=True):
            if n != 1 and stride != expected:
                return False
            expected *= n
        return True

    @property
    def num_entries(self) -> int:
        return product_of(self.sizes)


def product_of(sizes: Sequence[int]) -> int:
    """All of them multiplied."""
    product = 1
    for n in sizes:
        product *= n
    return product


def whole(buffer: Buffer, sizes: Sequence[int]) -> StridedPlace:
    """All entries of a buffer, contiguous."""
    strides = []
    stride = 1
    for n in reversed(sizes):
        strides.append(stride)
        stride *= n
    return StridedPlace(buffer, 0, tuple(sizes), tuple(reversed(strides)))


def place_like(tensor: Tensor, buffer: Buffer, offset: int = 0) -> StridedPlace:
    """Where a tensor lies in a buffer.

    Raises:
        UnsupportedError: Its sizes are not known, or its type has none in C++.
    """
    sizes, strides = tuple(tensor.shape), tensor.stride()
    if not all(type(n) is int for n in (*sizes, *strides)):
        raise UnsupportedError("a size that is not known")
    if tensor.dtype not in TYPES:
        raise UnsupportedError(f"{tensor.dtype}")
    return StridedPlace(buffer, offset, sizes, strides)


def extent(tensor: Tensor) -> int:
    """Entries from a tensor's first to its last."""
    if not tensor.numel():
        raise UnsupportedError("a tensor without entries")
    return 1 + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True))


@dataclass(frozen=True)
class Access:
    """What an operation reads in each iteration.

    Attributes:
        place: With the sizes of the iterations.
        index: Which of the values read before moves it along one more axis; None: none.
        step, count: Stride and size of that axis.
    """

    place: StridedPlace
    index: int | None = None
    step: int = 0
    count: int = 0


@dataclass(frozen=True)
class Elementwise:
    """One value for each iteration.

    Attributes:
        reads: What it is made of.
        text: The expression in C++, with {0}, {1}, ... for what is read.
        to: Where it is stored; its sizes are those of the iterations.
        reduction: How the values become one, at the first entry of `to`; None: they do not.
    """

    reads: tuple[Access, ...]
    text: str
    to: StridedPlace
    reduction: str | None = None


@dataclass(frozen=True)
class AxisReduction:
    """Sums, or the like, over some axes.

    Attributes:
        source: What is summed.
        to: With the same sizes; its stride is 0 for the axes that are summed over.
        kind: How two values become one.
    """

    source: StridedPlace
    to: StridedPlace
    kind: str


@dataclass(frozen=True)
class FunctionCall:
    """Of a function that is linked.

    Attributes:
        function: Its name.
        to: Written.
        reads: Its further tensors, as pointers; None: a null pointer.
        numbers: What it is told about them.
    """

    function: str
    to: StridedPlace
    reads: tuple[StridedPlace | None, ...]
    numbers: tuple[int, ...] = field(default=())


Operation = Elementwise | AxisReduction | FunctionCall


def places_read(operation: Operation) -> Iterator[StridedPlace]:
    """What it reads; of an indexed axis, all of it."""
    match operation:
        case Elementwise(reads=reads):
            for access in reads:
                yield reach(access)
        case AxisReduction(source=source):
            yield source
        case FunctionCall(reads=called):
            yield from (place for place in called if place is not None)


def reach(access: Access) -> StridedPlace:
    """All that it can read."""
    place = access.place
    if access.index is None:
        return place
    sizes, strides = (*place.sizes, access.count), (*place.strides, access.step)
    return StridedPlace(place.buffer, place.offset, sizes, strides)


def place_written(operation: Operation) -> StridedPlace:
    """What it writes."""
    if isinstance(operation, Elementwise) and operation.reduction is not None:
        return StridedPlace(operation.to.buffer, operation.to.offset, (), ())
    return operation.to
