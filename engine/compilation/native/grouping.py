"""Which operations share a loop: as many as can, so that values stay in registers.

An operation joins an earlier loop of the same iterations if nothing between them depends on the
order, and if within an iteration it meets no entries of other iterations.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from engine.compilation.native.places import (
    Access,
    AxisReduction,
    Buffer,
    Elementwise,
    FunctionCall,
    Operation,
    StridedPlace,
    UnsupportedError,
    place_written,
    places_read,
    reach,
)


@dataclass
class LoopNest:
    """Operations of the same iterations.

    Attributes:
        sizes: Of the iterations, by axis.
        body: What happens in each, in order.
    """

    sizes: tuple[int, ...]
    body: list[Elementwise] = field(default_factory=list)


Step = LoopNest | AxisReduction | FunctionCall


def grouped(operations: Sequence[Operation]) -> list[Step]:
    """The operations in an order that does the same, those that share a loop together.

    Raises:
        UnsupportedError: One changes entries that it reads in other iterations.
    """
    steps: list[Step] = []
    for operation in operations:
        if not isinstance(operation, Elementwise):
            steps.append(operation)
            continue
        simple = simplified(operation)
        if any(clash(read, Access(place_written(simple))) for read in simple.reads):
            raise UnsupportedError("a change of what it depends on")
        loop = _joined(steps, simple)
        if loop is None:
            steps.append(LoopNest(simple.to.sizes, [simple]))
        else:
            loop.body.append(simple)
    return steps


def _joined(steps: Sequence[Step], operation: Elementwise) -> LoopNest | None:
    """The last loop that an operation can join."""
    for step in reversed(steps):
        if isinstance(step, LoopNest) and _can_join(operation, step):
            return step
        if any(_is_ordered(operation, other) for other in operations_of(step)):
            return None
    return None


def _can_join(operation: Elementwise, loop: LoopNest) -> bool:
    return loop.sizes == operation.to.sizes and all(_fits(operation, each) for each in loop.body)


def operations_of(step: Step) -> Sequence[Operation]:
    """What a step does."""
    return step.body if isinstance(step, LoopNest) else [step]


def _is_ordered(later: Operation, earlier: Operation) -> bool:
    """Whether the later one must not come first."""
    written, before = place_written(later), place_written(earlier)
    return (
        any(before.overlaps(place) for place in places_read(later))
        or any(written.overlaps(place) for place in places_read(earlier))
        or written.overlaps(before)
    )


def _fits(later: Elementwise, earlier: Elementwise) -> bool:
    """Whether both can share a loop, the earlier one first: all that they have in common is the
    same entry in each iteration, and no sum, which is not there before the loop ends."""
    if earlier.reduction is not None and _is_ordered(later, earlier):
        return False
    pairs = [(Access(place_written(earlier)), read) for read in later.reads]
    pairs += [(read, Access(place_written(later))) for read in earlier.reads]
    pairs += [(Access(place_written(earlier)), Access(place_written(later)))]
    return not any(clash(one, other) for one, other in pairs)


def clash(one: Access, other: Access) -> bool:
    """Whether both have entries in common, but not the same ones in each iteration."""
    return reach(one).overlaps(reach(other)) and one != other


def simplified(operation: Elementwise) -> Elementwise:
    """The same with the fewest axes."""
    sizes, strides = merged(operation.to.sizes, [p.strides for p in _places(operation)])
    places = [
        replace(place, sizes=sizes, strides=own)
        for place, own in zip(_places(operation), strides, strict=True)
    ]
    reads = tuple(
        replace(access, place=place)
        for access, place in zip(operation.reads, places[1:], strict=True)
    )
    return replace(operation, to=places[0], reads=reads)


def _places(operation: Elementwise) -> list[StridedPlace]:
    return [operation.to, *(access.place for access in operation.reads)]


def merged(
    sizes: Sequence[int], strides: Sequence[Sequence[int]]
) -> tuple[tuple[int, ...], list[tuple[int, ...]]]:
    """Iterations with the fewest axes that meet the same entries, given the strides of each place.

    >>> merged((5, 1, 4), [(4, 4, 1), (8, 9, 2)])
    ((20,), [(1,), (2,)])
    """
    kept: list[tuple[int, list[int]]] = []
    for axis, size in enumerate(sizes):
        own = [each[axis] for each in strides]
        if size == 1:
            continue
        if kept and all(out == size * s for out, s in zip(kept[-1][1], own, strict=True)):
            kept[-1] = (kept[-1][0] * size, own)
        else:
            kept.append((size, own))
    number = range(len(strides))
    return tuple(n for n, _ in kept), [tuple(own[i] for _, own in kept) for i in number]


def stored(steps: Sequence[Step]) -> set[Buffer]:
    """The buffers that must be in memory: arguments, and what is read by another step, or in
    another way than it was written."""
    needed: set[Buffer] = set()
    for step in steps:
        written: set[tuple[Buffer, int, tuple[int, ...]]] = set()
        for operation in operations_of(step):
            for place in places_read(operation):
                if (place.buffer, place.offset, place.strides) not in written:
                    needed.add(place.buffer)
            to = place_written(operation)
            if isinstance(operation, Elementwise) and operation.reduction is None:
                written.add((to.buffer, to.offset, to.strides))
            else:
                needed.add(to.buffer)
            if not to.buffer.is_scratch:
                needed.add(to.buffer)
    return needed


def buffers_of(step: Step) -> Iterator[Buffer]:
    """All that a step reads or writes."""
    for operation in operations_of(step):
        yield place_written(operation).buffer
        yield from (place.buffer for place in places_read(operation))
