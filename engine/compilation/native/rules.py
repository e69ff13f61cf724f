"""How operations are lowered that are neither elementwise nor choices: sums, parts and the like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch.fx import Node

from engine.compilation.native.choices import CHOICES, axis_of
from engine.compilation.native.expressions import literal
from engine.compilation.native.lowering import Lowering, Rule, name_of
from engine.compilation.native.places import StridedPlace, UnsupportedError


def _fill(lowering: Lowering, node: Node, to: StridedPlace | None) -> None:
    """`zeros`, `full` and the like."""
    assert to is not None
    name = name_of(node)
    known = {"zeros": 0, "new_zeros": 0, "zeros_like": 0, "zero": 0}
    known |= {"ones": 1, "new_ones": 1, "ones_like": 1}
    value: object = known.get(name.removesuffix("_"))
    if value is None:
        value = node.args[0 if name == "scalar_tensor" else -1]
    if not isinstance(value, bool | int | float):
        raise UnsupportedError(f"{node.target} of {value}")
    lowering.builder.compute(literal(value, to.dtype), [], to)


def _copy(lowering: Lowering, node: Node, to: StridedPlace | None) -> None:
    assert to is not None
    lowering.builder.copy(lowering.place(node.args[1]), to)


def _empty(_lowering: Lowering, _node: Node, _to: StridedPlace | None) -> None:
    """Memory alone."""


def _cat(lowering: Lowering, node: Node, to: StridedPlace | None) -> None:
    assert to is not None
    parts, axis = node.args[0], axis_of(node, 1, default=0)
    assert isinstance(parts, Sequence)
    start = 0
    for part in parts:
        place = lowering.place(part)
        if len(place.sizes) != len(to.sizes):
            raise UnsupportedError("cat of an empty tensor")
        lowering.builder.copy(place, to.slice(axis, start, place.sizes[axis]))
        start += place.sizes[axis]


def _stack(lowering: Lowering, node: Node, to: StridedPlace | None) -> None:
    assert to is not None
    parts, axis = node.args[0], axis_of(node, 1, default=0)
    assert isinstance(parts, Sequence)
    for position, part in enumerate(parts):
        lowering.builder.copy(lowering.place(part), to.without(axis, position))


def _slice_backward(lowering: Lowering, node: Node, to: StridedPlace | None) -> None:
    """Zeros but for a slice (gradient, sizes, axis, start, end, step)."""
    assert to is not None
    lowering.builder.compute(literal(0, to.dtype), [], to)
    start, end, step = node.args[3:6]
    assert isinstance(start, int)
    assert isinstance(end, int)
    if step != 1:
        raise UnsupportedError("a slice with steps")
    axis = axis_of(node, 2)
    size = to.sizes[axis]
    first, last = (max(0, min(at + size if at < 0 else at, size)) for at in (start, end))
    part = to.slice(axis, first, last - first)
    lowering.builder.copy(lowering.place(node.args[0]), part)


def _select_backward(lowering: Lowering, node: Node, to: StridedPlace | None) -> None:
    """Zeros but for one position (gradient, sizes, axis, position)."""
    assert to is not None
    lowering.builder.compute(literal(0, to.dtype), [], to)
    axis, position = axis_of(node, 2), node.args[3]
    assert isinstance(position, int)
    part = to.without(axis, position % to.sizes[axis])
    lowering.builder.copy(lowering.place(node.args[0]), part)


_KINDS = {"sum": "sum", "mean": "sum", "amax": "max", "amin": "min", "all": "and", "any": "or"}


def _reduction(lowering: Lowering, node: Node, to: StridedPlace | None) -> None:
    """`sum` and the like, over all axes or some."""
    assert to is not None
    name = name_of(node)
    source = lowering.place(node.args[0])
    axes = _axes(node.args[1] if len(node.args) > 1 else None, len(source.sizes))
    kind = _KINDS[name]
    builder = lowering.builder
    if kind in ("max", "min") and all(source.strides[axis] == 0 for axis in axes):
        for axis in axes:
            source = source.slice(axis, 0, 1)
        builder.copy(source, _kept(to, axes, source.sizes))
        return
    if kind in ("and", "or"):
        truth = builder.contiguous(source.sizes, to.dtype)
        source = builder.compute("{0} != 0", [source], truth)
    elif source.dtype != to.dtype:
        source = builder.copy(source, builder.contiguous(source.sizes, to.dtype))
    kept = _kept(to, axes, source.sizes)
    builder.reduce(source, axes, kind, kept)
    if name == "mean":
        count = source.num_entries // to.num_entries
        builder.compute(f"{{0}} * {literal(1 / count, to.dtype)}", [to], to)


def _kept(to: StridedPlace, axes: Sequence[int], sizes: Sequence[int]) -> StridedPlace:
    """The place of a result, with an axis of size 1 for each that was summed over."""
    if len(to.sizes) == len(sizes):
        return to
    strides = iter(to.strides)
    kept = tuple(0 if axis in axes else next(strides) for axis in range(len(sizes)))
    return StridedPlace(
        to.buffer, to.offset, tuple(1 if a in axes else n for a, n in enumerate(sizes)), kept
    )


def _axes(given: object, rank: int) -> list[int]:
    if given is None or given == []:
        return list(range(rank))
    listed: Sequence[object] = given if isinstance(given, Sequence) else [given]
    return sorted(axis % max(rank, 1) for axis in listed if isinstance(axis, int))


def _dot(lowering: Lowering, node: Node, to: StridedPlace | None) -> None:
    assert to is not None
    one, other = (lowering.place(factor) for factor in node.args)
    out = StridedPlace(to.buffer, to.offset, one.sizes, (0,))
    lowering.builder.compute("{0} * {1}", [one, other], out, "sum")


def _norm(lowering: Lowering, node: Node, to: StridedPlace | None) -> None:
    """Of all entries, the Euclidean norm."""
    assert to is not None
    if (*node.args[1:2], 2)[0] != 2 or len(node.args) > 2 or node.kwargs:
        raise UnsupportedError("a norm that is not Euclidean")
    source = lowering.place(node.args[0])
    squares = lowering.builder.contiguous((), to.dtype)
    out = StridedPlace(squares.buffer, 0, source.sizes, (0,) * len(source.sizes))
    lowering.builder.compute("{0} * {0}", [source], out, "sum")
    lowering.builder.compute("root({0})", [squares], to)


def _softmax(lowering: Lowering, node: Node, to: StridedPlace | None) -> None:
    """Of logits x: x - log(sum(exp x)), or its exponential. The largest is subtracted first, beside
    which the logarithm may be too small to be added to it."""
    assert to is not None
    source, axis, builder = lowering.place(node.args[0]), axis_of(node, 1), lowering.builder
    largest, total = (builder.contiguous(_row(to, axis), to.dtype) for _ in range(2))
    builder.reduce(source, [axis], "max", largest)
    lifted = builder.contiguous(to.sizes, to.dtype)
    builder.compute("exponential({0} - {1})", [source, largest], lifted)
    builder.reduce(lifted, [axis], "sum", total)
    if name_of(node) == "_softmax":
        builder.compute("{0} / {1}", [lifted, total], to)
    else:
        shift = builder.contiguous(_row(to, axis), to.dtype)
        builder.compute("logarithm({0})", [total], shift)
        builder.compute("{0} - {1} - {2}", [source, largest, shift], to)


def _softmax_backward(lowering: Lowering, node: Node, to: StridedPlace | None) -> None:
    """Of a gradient g and what the function returned, y."""
    assert to is not None
    gradient, returned = (lowering.place(each) for each in node.args[:2])
    axis, builder = axis_of(node, 2), lowering.builder
    total = builder.contiguous(_row(to, axis), to.dtype)
    if name_of(node) == "_log_softmax_backward_data":
        builder.reduce(gradient, [axis], "sum", total)
        builder.compute("{0} - exponential({1}) * {2}", [gradient, returned, total], to)
    else:
        both = builder.contiguous(to.sizes, to.dtype)
        builder.compute("{0} * {1}", [gradient, returned], both)
        builder.reduce(both, [axis], "sum", total)
        builder.compute("({0} - {2}) * {1}", [gradient, returned, total], to)


def _row(place: StridedPlace, axis: int) -> tuple[int, ...]:
    return tuple(1 if a == axis else n for a, n in enumerate(place.sizes))


RULES: Mapping[str, Rule] = {
    **CHOICES,
    **dict.fromkeys(("zeros", "zeros_like", "new_zeros", "zero", "ones", "ones_like"), _fill),
    **dict.fromkeys(("new_ones", "full", "full_like", "new_full", "scalar_tensor"), _fill),
    **dict.fromkeys(("empty", "empty_like", "new_empty", "empty_strided"), _empty),
    **dict.fromkeys(_KINDS, _reduction),
    **dict.fromkeys(("_softmax", "_log_softmax"), _softmax),
    **dict.fromkeys(("_softmax_backward_data", "_log_softmax_backward_data"), _softmax_backward),
    "cat": _cat,
    "copy": _copy,
    "dot": _dot,
    "linalg_vector_norm": _norm,
    "select_backward": _select_backward,
    "slice_backward": _slice_backward,
    "stack": _stack,
}
"""By the name of the operation."""
