"""Where scratch buffers lie: in one block of memory, which those share that are never needed at
once; and which of them are a part of another one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from engine.compilation.native.grouping import Step, buffers_of
from engine.compilation.native.places import (
    AxisReduction,
    Buffer,
    Elementwise,
    FunctionCall,
    Operation,
    StridedPlace,
    place_written,
)

ALIGNMENT = 64


@dataclass(frozen=True)
class ScratchMemory:
    """Offsets of buffers in a block, in bytes."""

    offsets: dict[Buffer, int]
    num_bytes: int


def laid_out(steps: Sequence[Step], needed: set[Buffer]) -> ScratchMemory:
    """Finds the lowest place for each buffer.

    Args:
        steps: In the order of execution.
        needed: The buffers that must be in memory.
    """
    lives: dict[Buffer, tuple[int, int]] = {}
    for at, step in enumerate(steps):
        for buffer in buffers_of(step):
            if buffer.is_scratch and buffer in needed:
                first, _ = lives.get(buffer, (at, at))
                lives[buffer] = (first, at)
    offsets: dict[Buffer, int] = {}
    top = 0
    for buffer, (first, last) in sorted(lives.items(), key=lambda item: item[1]):
        size = -(-buffer.num_bytes // ALIGNMENT) * ALIGNMENT
        taken = sorted(
            (offsets[other], offsets[other] + -(-other.num_bytes // ALIGNMENT) * ALIGNMENT)
            for other in offsets
            if lives[other][0] <= last and first <= lives[other][1]
        )
        at = 0
        for start, end in taken:
            if at + size <= start:
                break
            at = max(at, end)
        offsets[buffer] = at
        top = max(top, at + size)
    return ScratchMemory(offsets, top)


def without_copies(operations: Sequence[Operation]) -> list[Operation]:
    """Lets calls and sums write to where all of their result is copied later.

    That is a part of a `cat`, as the gradient of all parameters is.
    """
    writers: dict[Buffer, list[Operation]] = {}
    for operation in operations:
        writers.setdefault(place_written(operation).buffer, []).append(operation)
    moved: dict[Buffer, StridedPlace] = {}
    for operation in operations:
        if not isinstance(operation, Elementwise) or not is_copy(operation):
            continue
        source, to = operation.reads[0].place, operation.to
        own = writers.get(source.buffer, [])
        is_alone = len(own) == 1 and isinstance(own[0], FunctionCall | AxisReduction)
        is_whole = source.is_contiguous and source.num_entries == source.buffer.size
        is_fresh = all(
            is_copy(other) and (other is operation or not place_written(other).overlaps(to))
            for other in writers[to.buffer]
        )
        if (
            *(is_alone, is_whole, is_fresh),
            *(to.is_contiguous, to.buffer.is_scratch, source.buffer.is_scratch),
            *(source.buffer not in moved, to.buffer not in moved),
        ) == (True,) * 8:
            moved[source.buffer] = to
    return [
        _moved(operation, moved)
        for operation in operations
        if not (
            isinstance(operation, Elementwise) and is_copy(operation) and _is_done(operation, moved)
        )
    ]


def is_copy(operation: Operation) -> bool:
    """Whether it copies entries and does nothing else."""
    return (
        isinstance(operation, Elementwise)
        and operation.text == "{0}"
        and operation.reduction is None
        and len(operation.reads) == 1
        and operation.reads[0].index is None
        and operation.reads[0].place.dtype == operation.to.dtype
    )


def _is_done(operation: Elementwise, moved: dict[Buffer, StridedPlace]) -> bool:
    """Whether a copy has become one onto itself."""
    return moved.get(operation.reads[0].place.buffer) == operation.to


def _moved(operation: Operation, moved: dict[Buffer, StridedPlace]) -> Operation:
    def at(place: StridedPlace) -> StridedPlace:
        target = moved.get(place.buffer)
        if target is None:
            return place
        return replace(place, buffer=target.buffer, offset=place.offset + target.offset)

    match operation:
        case Elementwise(reads=reads, to=to):
            new = tuple(replace(access, place=at(access.place)) for access in reads)
            return replace(operation, reads=new, to=at(to))
        case AxisReduction(source=source, to=to):
            return replace(operation, source=at(source), to=at(to))
        case FunctionCall(to=to, reads=called):
            return replace(operation, to=at(to), reads=tuple(p and at(p) for p in called))
