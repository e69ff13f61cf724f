"""How loops without PyTorch call `product.cpp` and `accumulate.cpp`: the rules by which
`engine.compilation.native` lowers what they compute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch.fx import Node

from engine.compilation.native.lowering import Lowering, Rule, plain_name_of
from engine.compilation.native.places import (
    Buffer,
    FunctionCall,
    StridedPlace,
    UnsupportedError,
    product_of,
    whole,
)
from engine.compilation.products import NOTHING, is_bias_of, numbers_of


def rules_of_calls(num_threads: int) -> Mapping[str, Rule]:
    """What lowers both, by the name of the operation; so many threads may share a product."""

    def matrix_product(lowering: Lowering, node: Node, to: StridedPlace | None) -> None:
        is_sum = plain_name_of(node) == "addmm"
        bias, a, b = node.args if is_sum else (None, *node.args)
        if node.kwargs:
            raise UnsupportedError(f"{node.target} with factors")
        _multiply(lowering, (a, b, bias, None, NOTHING), to, num_threads)

    def product(lowering: Lowering, node: Node, to: StridedPlace | None) -> None:
        _multiply(lowering, node.args, to, num_threads)

    products = {**dict.fromkeys(("mm", "bmm", "addmm"), matrix_product), "product": product}
    return {**products, "accumulate": _accumulate}


def _accumulate(lowering: Lowering, node: Node, to: StridedPlace | None) -> None:
    """See `engine.algorithms.returns`."""
    assert to is not None
    builder = lowering.builder
    delta, trace = (lowering.place(each) for each in node.args)
    if {delta.dtype, trace.dtype, to.dtype} != {torch.float32} or not to.is_contiguous:
        raise UnsupportedError(f"{node.target} of {to.dtype}")
    reads = (builder.packed(delta), builder.packed(trace.expanded(to.sizes)))
    numbers = (to.sizes[0], product_of(to.sizes[1:]))
    builder.operations.append(FunctionCall("tianji_accumulate", to, reads, numbers))


def _multiply(
    lowering: Lowering, arguments: Sequence[object], to: StridedPlace | None, num_threads: int
) -> None:
    """A call of the kernel; see `engine.compilation.products.product`. It adds a bias that is the
    same in each row, and a loop adds all others."""
    assert to is not None
    builder = lowering.builder
    left, right = (lowering.place(factor) for factor in arguments[:2])
    bias, beside = (None if each is None else lowering.place(each) for each in arguments[2:4])
    then = arguments[4]
    assert isinstance(then, int)
    if 0 in left.sizes:
        raise UnsupportedError("a product without entries")
    if bias is not None and not is_bias_of(bias.sizes, to.sizes):
        if then != NOTHING:
            raise UnsupportedError("a bias of another shape")
        total = builder.contiguous(to.sizes, to.dtype)
        _multiply(lowering, (*arguments[:2], None, None, NOTHING), total, num_threads)
        builder.compute("{0} + {1}", [total, bias], to)
        return
    if to.dtype != torch.float32 or left.dtype != to.dtype or not to.is_contiguous:
        raise UnsupportedError(f"a product of {to.dtype}")
    if 1 not in [
        s if n > 1 else 1 for n, s in zip(right.sizes[-2:], right.strides[-2:], strict=True)
    ]:
        right = builder.copy(right, whole(Buffer(right.dtype, right.num_entries), right.sizes))
    bias, beside = (place and builder.packed(place) for place in (bias, beside))
    numbers = numbers_of(
        (left.sizes, left.strides),
        (right.sizes, right.strides),
        bias is not None and len(bias.sizes) == 3,
        then,
        num_threads,
    )
    reads = (left, right, bias, beside)
    builder.operations.append(FunctionCall("tianji_product", to, reads, numbers))
