"""Lets operations write into an argument what is only copied there later.

`tensor.copy_(torch.cat(parts))` computes each part, joins them in memory, and copies that. Here
each part is written to its place in the argument at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from engine.compilation.native.grouping import clash
from engine.compilation.native.memory import is_copy
from engine.compilation.native.places import (
    Access,
    Elementwise,
    Operation,
    StridedPlace,
    place_written,
    places_read,
)


def written_in_place(operations: Sequence[Operation]) -> list[Operation]:
    """The same without copies of what nothing else reads, if the order allows it."""
    current = list(operations)
    for copy in operations:
        is_there = any(each is copy for each in current)
        if is_there and isinstance(copy, Elementwise) and _is_of_scratch(copy):
            current = _without(copy, current)
    return [each for each in current if not _is_onto_itself(each)]


def _is_of_scratch(copy: Elementwise) -> bool:
    """Whether an operation copies all of a buffer into an argument."""
    if not is_copy(copy):
        return False
    source = copy.reads[0].place
    is_whole = source.is_contiguous and source.num_entries == source.buffer.size
    into_argument = copy.to.buffer.argument is not None and copy.to.is_contiguous
    return source.buffer.is_scratch and is_whole and into_argument


def _without(copy: Elementwise, operations: list[Operation]) -> list[Operation]:
    """The operations without this copy; the same as before if another result is possible then."""
    source, end = copy.reads[0].place.buffer, _position(copy, operations)
    for at, operation in enumerate(operations):
        reads_it = any(place.buffer is source for place in places_read(operation))
        is_late = at > end and place_written(operation).buffer is source
        if (reads_it and operation is not copy) or is_late:
            return operations
    moved: dict[int, Operation] = {}
    for at, operation in enumerate(operations[:end]):
        if place_written(operation).buffer is source:
            if not isinstance(operation, Elementwise) or operation.reduction is not None:
                return operations
            new = replace(operation, to=_in_argument(operation.to, copy))
            between = [op for i, op in enumerate(operations[:end]) if i > at]
            if not _may_be_early(new, between):
                return operations
            moved[at] = new
    return [moved.get(at, each) for at, each in enumerate(operations) if each is not copy]


def _position(wanted: Operation, operations: Sequence[Operation]) -> int:
    return next(at for at, each in enumerate(operations) if each is wanted)


def _in_argument(place: StridedPlace, copy: Elementwise) -> StridedPlace:
    """A place in the source of a copy, in what it is copied to."""
    return replace(place, buffer=copy.to.buffer, offset=place.offset + copy.to.offset)


def _may_be_early(writer: Elementwise, between: Sequence[Operation]) -> bool:
    """Whether an operation may write before these, which read and write what they did before it;
    and whether what it reads itself are no entries that it has written in other iterations."""
    meets = any(clash(read, Access(writer.to)) for read in writer.reads)
    return not meets and not any(
        writer.to.overlaps(place)
        for other in between
        for place in (place_written(other), *places_read(other))
    )


def _is_onto_itself(operation: Operation) -> bool:
    """Whether it copies entries to where they are."""
    if not isinstance(operation, Elementwise) or not is_copy(operation):
        return False
    return operation.reads[0].place == operation.to
