"""How PyTorch's ahead-of-time compiler calls `product.cpp` for the operation `tianji::product`, and
`accumulate.cpp` for `tianji::accumulate`.

Imports that compiler, so only what compiles imports this.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch._inductor import ir
from torch._inductor.lowering import expand, lowerings

_FUNCTION = "aoti_torch_cpu_tianji_product"
_NUM_TENSORS, _NUM_INTEGERS = 5, 19
_ACCUMULATE = "aoti_torch_cpu_tianji_accumulate"
_ACCUMULATE_ARGUMENTS = 3, 4


def _declared(function: str, num_tensors: int, num_integers: int) -> list[str]:
    return [
        f"int32_t {function}({', '.join(['void*'] * num_tensors + ['int64_t'] * num_integers)})"
    ]


DECLARATIONS: Mapping[object, list[str]] = {
    torch.ops.tianji.product.default: _declared(_FUNCTION, _NUM_TENSORS, _NUM_INTEGERS),
    torch.ops.tianji.accumulate.default: _declared(_ACCUMULATE, *_ACCUMULATE_ARGUMENTS),
}
"""The function by its operation, for the compiler."""


class _Call(ir.ExternKernelOut):
    """Of a function: buffers, and integers that say where in them its matrices are. That is cheaper
    than a view of each."""

    def codegen_args(self) -> list[str]:
        assert ir.is_node_sequence(self.inputs)
        buffers = [buffer.codegen_reference() for buffer in self.inputs]
        return [*buffers, *(f"{number}L" for number in self.constant_args)]

    def get_kernel_name(self) -> str:
        assert self.cpp_kernel_name is not None
        return self.cpp_kernel_name


class _Placed:
    """A tensor in a buffer.

    Args:
        x: Any tensor; if it is in no buffer, one is made.

    Attributes:
        buffer: The whole buffer.
        start: Where in it the tensor starts, in entries.
        strides: By batch, row and column; 1 for axes of one entry, and 0 without a batch.
    """

    def __init__(self, x: ir.IRNode) -> None:
        realized = ir.ExternKernel.realize_input(x)
        realized.freeze_layout()
        layout = realized.get_layout()
        is_view = isinstance(realized, ir.BaseView)
        self.buffer = realized.unwrap_view() if is_view else realized
        self.start = int(layout.offset)
        sizes, strides = (list(map(int, each)) for each in (layout.size, layout.stride))
        by_axis = [1 if n == 1 else stride for n, stride in zip(sizes, strides, strict=True)]
        self.strides = (strides[0] if len(sizes) == 3 else 0, *by_axis[-2:])


def lower_products(num_threads: int) -> None:
    """Teaches the compiler the operation, for functions whose products so many threads may
    share."""
    for operation in (torch.ops.tianji.product, torch.ops.tianji.product.default):
        lowerings[operation] = partial(_lowered, num_threads)


def _lowered(
    num_threads: int,
    a: ir.TensorBox,
    b: ir.TensorBox,
    bias: ir.TensorBox | None,
    beside: ir.TensorBox | None,
    then: int,
) -> ir.TensorBox:
    *batches, rows, depth = map(int, a.get_size())
    columns = int(b.get_size()[-1])
    left, right = _Placed(a), _Placed(b)
    if 1 not in right.strides[1:]:
        right = _Placed(ir.ExternKernel.copy_input(b))
    added = left if bias is None else _Placed(ir.ExternKernel.require_contiguous(bias))
    near = left if beside is None else _Placed(ir.ExternKernel.require_contiguous(beside))
    has_biases = bias is not None and len(bias.get_size()) == 3
    inputs: Sequence[_Placed] = (left, right, added, near)
    numbers = [
        *(each.start for each in inputs),
        *(int(bias is not None), int(beside is not None)),
        *(batches[0] if batches else 1, rows, columns, depth),
        *(*left.strides, *right.strides),
        *(added.strides[0] if has_biases else 0, then, num_threads),
    ]
    assert len(numbers) == _NUM_INTEGERS
    layout = ir.FixedLayout(a.get_device_or_error(), torch.float32, [*batches, rows, columns])
    buffers = [each.buffer for each in inputs]
    call = _Call(layout, buffers, numbers, cpp_kernel_name=_FUNCTION)
    return ir.TensorBox.create(call)


def lower_accumulate() -> None:
    """Teaches the compiler that operation."""
    for operation in (torch.ops.tianji.accumulate, torch.ops.tianji.accumulate.default):
        lowerings[operation] = _lowered_accumulate


def _lowered_accumulate(delta: ir.TensorBox, trace: ir.TensorBox) -> ir.TensorBox:
    sizes = list(map(int, delta.get_size()))
    trace = expand(trace, sizes)
    inputs = [_Placed(ir.ExternKernel.require_contiguous(each)) for each in (delta, trace)]
    numbers = [*(each.start for each in inputs), sizes[0], math.prod(sizes[1:])]
    layout = ir.FixedLayout(delta.get_device_or_error(), torch.float32, sizes)
    buffers = [each.buffer for each in inputs]
    call = _Call(layout, buffers, numbers, cpp_kernel_name=_ACCUMULATE)
    return ir.TensorBox.create(call)
