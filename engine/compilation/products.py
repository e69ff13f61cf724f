"""Matrix products of a graph, with what is done to their entries, in one operation each.

    product(a, b)[c] = then(a[c] b[c] + bias[c], beside[c])

`product.cpp` computes it (`engine.compilation.product_kernel`): it adds the bias, and applies an
activation or its gradient, before it stores an entry.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

aten = torch.ops.aten
NOTHING, RELU, TANH, RELU_GRADIENT, TANH_GRADIENT = range(5)
"""What happens to an entry: `Then` of `product.cpp`. Of a gradient, `beside` is what the activation
has returned."""
_ACTIVATIONS: Mapping[object, int] = {aten.relu.default: RELU, aten.tanh.default: TANH}
_GRADIENTS: Mapping[object, int] = {
    aten.threshold_backward.default: RELU_GRADIENT,
    aten.tanh_backward.default: TANH_GRADIENT,
}


@dataclass(frozen=True)
class Shape:
    """Sizes of a product [C, M, K] x [C, K, N], and the strides of both factors, by batch, row and
    column.

    >>> str(Shape.of(torch.empty(200, 64), torch.empty(2, 64).t()))
    '200 x 64 x 2'
    """

    batch: int
    rows: int
    columns: int
    depth: int
    of_a: tuple[int, int, int]
    of_b: tuple[int, int, int]

    @classmethod
    def of(cls, a: Tensor, b: Tensor) -> Shape:
        batch = a.shape[0] if a.dim() == 3 else 1
        return cls(batch, a.shape[-2], b.shape[-1], a.shape[-1], strides_of(a), strides_of(b))

    @property
    def num_multiplications(self) -> int:
        return self.batch * self.rows * self.columns * self.depth

    def __str__(self) -> str:
        sizes = (self.rows, self.depth, self.columns)
        return " x ".join(map(str, (self.batch, *sizes) if self.batch > 1 else sizes))


Sized: TypeAlias = tuple[Sequence[int], Sequence[int]]
"""Sizes and strides, by axis."""


def strides_of(matrix: Tensor) -> tuple[int, int, int]:
    """By batch, row and column; see `strides_by_axis`."""
    return strides_by_axis((matrix.shape, matrix.stride()))


def strides_by_axis(matrix: Sized) -> tuple[int, int, int]:
    """By batch, row and column; 1 for rows and columns if there is only one, and 0 for one
    matrix."""
    sizes, strides = matrix
    axes = zip(sizes[-2:], strides[-2:], strict=True)
    row, column = (1 if size == 1 else stride for size, stride in axes)
    return strides[0] if len(sizes) == 3 else 0, row, column


def numbers_of(
    a: Sized, b: Sized, has_biases: bool, then: int, num_threads: int
) -> tuple[int, ...]:
    """What `product.cpp` is told about a product.

    Args:
        a, b: The sizes and strides of both factors.
        has_biases: Whether each product of a batch has a bias of its own.
        then: What happens to an entry.
        num_threads: So many may share it.
    """
    *batches, rows, depth = a[0]
    columns = b[0][-1]
    strides = (*strides_by_axis(a), *strides_by_axis(b))
    bias = columns if has_biases else 0
    return (*(batches or [1]), rows, columns, depth, *strides, bias, then, num_threads)


@torch.library.custom_op("tianji::product", mutates_args=())
def product(a: Tensor, b: Tensor, bias: Tensor | None, beside: Tensor | None, then: int) -> Tensor:
    """The first line of this module, as PyTorch computes it: what it means.

    Args:
        a, b: float32 [M, K] and [K, N], or [C, M, K] and [C, K, N].
        bias: [N], or [1, N], or [C, 1, N].
        beside: In the shape of the product, for gradients.
        then: What happens to an entry.
    """
    return finished(a @ b if bias is None else a @ b + bias, beside, then)


def finished(x: Tensor, beside: Tensor | None, then: int) -> Tensor:
    """What happens to the entries of a product."""
    if then == RELU:
        return x.relu()
    if then == TANH:
        return x.tanh()
    gradient: Tensor
    if then == RELU_GRADIENT:
        gradient = aten.threshold_backward(x, beside, 0)
    elif then == TANH_GRADIENT:
        gradient = aten.tanh_backward(x, beside)
    else:
        return x.clone()
    return gradient


@product.register_fake
def _(a: Tensor, b: Tensor, bias: Tensor | None, beside: Tensor | None, then: int) -> Tensor:
    return a.new_empty(*a.shape[:-1], b.shape[-1])


def replace_products(module: GraphModule, is_wanted: Callable[[Shape, int], bool]) -> None:
    """Makes a `product` of each wanted product and of what follows it, in place.

    Args:
        module: A graph whose nodes know their values' shapes.
        is_wanted: Asked for each product in float32, and for what happens to its entries then.
    """
    graph = module.graph
    for node in list(graph.nodes):
        if (factors := _factors_of(node)) is None:
            continue
        nodes, arguments = _with_what_follows(node, factors)
        if _is_any_changed(nodes):
            nodes, arguments = [node], (*factors, None, NOTHING)
        if not is_wanted(Shape.of(*map(_value, factors[:2])), arguments[-1]):
            continue
        with graph.inserting_before(nodes[-1]):
            made = graph.call_function(torch.ops.tianji.product.default, arguments)
        made.meta = dict(nodes[-1].meta)
        nodes[-1].replace_all_uses_with(made)
        for old in reversed(nodes):
            graph.erase_node(old)
    module.recompile()


def _factors_of(node: Node) -> tuple[Node, Node, Node | None] | None:
    """Both factors of a product in float32, and its bias if it has one."""
    bias: object = None
    if node.target in (aten.mm.default, aten.bmm.default):
        a, b = node.args
    elif node.target is aten.addmm.default and not node.kwargs:
        bias, a, b = node.args
    else:
        return None
    assert isinstance(a, Node)
    assert isinstance(b, Node)
    are_real = all(_value(factor).dtype == torch.float32 for factor in (a, b))
    if not are_real or (bias is not None and not _is_bias(bias, node)):
        return None
    assert bias is None or isinstance(bias, Node)
    return a, b, bias


_Arguments = tuple[Node, Node, Node | None, Node | None, int]


def _with_what_follows(
    node: Node, factors: tuple[Node, Node, Node | None]
) -> tuple[list[Node], _Arguments]:
    """The nodes from a product to the last that can be one with it, each the only user of the one
    before; and the arguments of that."""
    nodes, (a, b, bias) = [node], factors
    user = _only_user(node)
    if bias is None and user is not None and user.target is aten.add.Tensor and not user.kwargs:
        others = [other for other in user.args if other is not node]
        is_as_wide = _value(user).shape == _value(node).shape
        if is_as_wide and len(others) == 1 and _is_bias(others[0], user):
            assert isinstance(others[0], Node)
            bias, nodes = others[0], [*nodes, user]
            user = _only_user(user)
    if user is not None and user.target in _ACTIVATIONS:
        return [*nodes, user], (a, b, bias, None, _ACTIVATIONS[user.target])
    if bias is None and user is not None and _is_gradient(user, node):
        beside = user.args[1]
        assert isinstance(beside, Node)
        return [*nodes, user], (a, b, None, beside, _GRADIENTS[user.target])
    return nodes, (a, b, bias, None, NOTHING)


def _is_any_changed(nodes: list[Node]) -> bool:
    """Whether something is changed in place between the first and the last of these nodes: then
    the product must not move to where the last one is."""
    between, node = [], nodes[0]
    while node is not nodes[-1]:
        node = node.next
        between.append(node)
    schemas = (getattr(node.target, "_schema", None) for node in between)
    return any(schema is not None and schema.is_mutable for schema in schemas)


def _only_user(node: Node) -> Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _is_bias(other: object, node: Node) -> bool:
    """Whether something is added to a node that is the same in each row."""
    if not isinstance(other, Node) or "val" not in other.meta:
        return False
    if not _value(other).dtype == _value(node).dtype == torch.float32:
        return False
    return is_bias_of(_value(other).shape, _value(node).shape)


def is_bias_of(shape: Sequence[int], product: Sequence[int]) -> bool:
    """Whether a product of these sizes can have a bias of that shape: [N], [1, N] or [C, 1, N]."""
    is_one = tuple(shape) in (tuple(product[-1:]), (1, product[-1]))
    return is_one or (len(product) == 3 and tuple(shape) == (product[0], 1, product[2]))


def _is_gradient(user: Node, node: Node) -> bool:
    """Whether a node is the gradient of an activation, of one that is a product."""
    if user.target not in _GRADIENTS or user.args[0] is not node:
        return False
    beside = user.args[1]
    if not isinstance(beside, Node) or _value(beside).shape != _value(node).shape:
        return False
    return user.args[1] is not node and tuple(user.args[2:]) in ((), (0,))


def _value(node: Node) -> Tensor:
    value = node.meta["val"]
    assert isinstance(value, Tensor)
    return value
