"""How operations are lowered that choose entries: by an index, or the largest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch.fx import Node

from engine.compilation.native.builder import Builder
from engine.compilation.native.lowering import Lowering, Rule, value_of
from engine.compilation.native.places import Access, Buffer, StridedPlace, UnsupportedError


def axis_of(node: Node, position: int, default: int | None = None) -> int:
    """The axis that an argument names, of the result's."""
    given = node.args[position] if len(node.args) > position else default
    assert isinstance(given, int)
    rank = value_of(node).dim()
    return given % max(rank, 1)


def _index_select(lowering: Lowering, node: Node, to: StridedPlace | None) -> None:
    assert to is not None
    source, axis, index = (
        lowering.place(node.args[0]),
        axis_of(node, 1),
        lowering.place(node.args[2]),
    )
    places = tuple(1 if a != axis else index.sizes[0] for a in range(len(to.sizes)))
    strides = tuple(0 if a != axis else index.strides[0] for a in range(len(to.sizes)))
    chosen = StridedPlace(index.buffer, index.offset, places, strides)
    _choose(lowering.builder, source, axis, chosen, to)


def _gather(lowering: Lowering, node: Node, to: StridedPlace | None) -> None:
    assert to is not None
    source, index = lowering.place(node.args[0]), lowering.place(node.args[2])
    _choose(lowering.builder, source, axis_of(node, 1), index, to)


def _choose(
    builder: Builder, source: StridedPlace, axis: int, index: StridedPlace, to: StridedPlace
) -> None:
    """to[i, j] = source[i, index[i, j]], if this is the axis of `j`."""
    strides = tuple(0 if a == axis else s for a, s in enumerate(source.strides))
    rest = StridedPlace(source.buffer, source.offset, to.sizes, strides)
    chosen = Access(rest, index=0, step=source.strides[axis], count=source.sizes[axis])
    builder.compute("{1}", [index, chosen], to)


def _scatter_add(lowering: Lowering, node: Node, to: StridedPlace | None) -> None:
    """Of one entry in each row: all others are compared away, so that no row has a loop."""
    assert to is not None
    axis, index = axis_of(node, 1), lowering.place(node.args[2])
    before, added = lowering.place(node.args[0]), lowering.place(node.args[3])
    rows = (*before.sizes[:axis], 1, *before.sizes[axis + 1 :])
    if index.sizes != rows or added.sizes != rows:
        raise UnsupportedError("scatter_add of several entries")
    within = lowering.builder.contiguous(rows, to.dtype)
    _choose(lowering.builder, before, axis, index, within)  # tells what is out of bounds
    places = _positions(before.sizes, axis)
    text = "{0} + ({2} == {1} ? {3} : 0)"
    lowering.builder.compute(text, [before, index, places, added], to)


def _positions(sizes: Sequence[int], axis: int) -> StridedPlace:
    """The position of each entry along an axis."""
    count = sizes[axis]
    buffer = Buffer(torch.int64, count, values=tuple(range(count)))
    strides = tuple(int(a == axis) for a in range(len(sizes)))
    return StridedPlace(buffer, 0, tuple(sizes), strides)


def _argmax(lowering: Lowering, node: Node, to: StridedPlace | None) -> None:
    assert to is not None
    _largest(lowering, node, None, to)


def _max(lowering: Lowering, node: Node, _to: StridedPlace | None) -> None:
    """The largest along an axis, and where it is."""
    if _to is not None:
        raise UnsupportedError(f"{node.target}")
    results = node.meta["val"]
    values, where = (lowering.builder.scratch(each) for each in results)
    _largest(lowering, node, values, where)
    for user in node.users:
        position = user.args[1]
        assert isinstance(position, int)
        lowering.define(user, (values, where)[position])


def _largest(
    lowering: Lowering, node: Node, values: StridedPlace | None, where: StridedPlace
) -> None:
    """The first of the largest along an axis; what is not a number is larger than all."""
    source, builder = lowering.place(node.args[0]), lowering.builder
    axis = node.args[1] if len(node.args) > 1 else None
    if not isinstance(axis, int) or source.sizes[axis] > _FEW:
        raise UnsupportedError(f"{node.target} of many entries")
    axis %= len(source.sizes)
    keeps = len(where.sizes) == len(source.sizes)
    parts = [source.slice(axis, i, 1) for i in range(source.sizes[axis])]
    if not keeps:
        parts = [part.without(axis) for part in parts]
    best = parts[0]
    found = builder.compute("0", [], builder.contiguous(best.sizes, torch.int64))
    for position, part in enumerate(parts[1:], start=1):
        is_more = "({0} > {1}) | (({0} != {0}) & ({1} == {1}))"
        at = builder.contiguous(best.sizes, torch.int64)
        found = builder.compute(f"({is_more}) ? {position}L : {{2}}", [part, best, found], at)
        larger = builder.contiguous(best.sizes, source.dtype)
        best = builder.compute("larger({0}, {1})", [part, best], larger)
    builder.copy(found, where)
    if values is not None:
        builder.copy(best, values)


_FEW = 32
"""Entries that are compared one after the other."""


def _arange(lowering: Lowering, node: Node, to: StridedPlace | None) -> None:
    """Of whole numbers: (end), (start, end) or (start, end, step)."""
    assert to is not None
    given = [each for each in node.args if isinstance(each, int)]
    if len(given) != len(node.args):
        raise UnsupportedError(f"{node.target} of {node.args}")
    start = given[0] if len(given) > 1 else 0
    step = given[2] if len(given) > 2 else 1
    lowering.builder.compute(f"{{0}} * {step} + {start}", [_positions(to.sizes, 0)], to)


def _eye(lowering: Lowering, _node: Node, to: StridedPlace | None) -> None:
    assert to is not None
    rows, columns = (_positions(to.sizes, axis) for axis in range(2))
    lowering.builder.compute("{0} == {1}", [rows, columns], to)


CHOICES: Mapping[str, Rule] = {
    "arange": _arange,
    "argmax": _argmax,
    "eye": _eye,
    "gather": _gather,
    "index_select": _index_select,
    "max": _max,
    "scatter_add": _scatter_add,
}
"""By the name of the operation."""
