"""Matrix products of a compiled step by oneDNN, instead of PyTorch's BLAS library.

On an AMD processor with AVX-512, MKL multiplies 256 x 256 matrices in float32 at 106 GFLOP/s on one
core, oneDNN at 211; a step of SAC is nearly nothing else. Only steps of several parts are rewritten
so far: another order of additions would change the last digits of all other runs.
"""

from __future__ import annotations

import platform

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node
from torch.fx.node import Argument

aten = torch.ops.aten
LEAST_SIZE = 8
"""Of every axis of a product; smaller ones are left to the compiler."""


def multiply_by_onednn(module: GraphModule) -> None:
    """Rewrites the products of large enough float32 matrices, in place."""
    if not torch._C._has_mkldnn or platform.machine() != "x86_64":
        return
    graph = module.graph
    for node in list(graph.nodes):
        with graph.inserting_before(node):
            product = _rewritten(graph, node)
        if product is not None:
            product.meta = dict(node.meta)
            node.replace_all_uses_with(product)
            graph.erase_node(node)
    module.recompile()


def _rewritten(graph: Graph, node: Node) -> Node | None:
    """The same product by oneDNN; None if it is none, or too small."""
    if node.target is aten.mm.default and _are_large(*node.args):
        return _product(graph, *node.args)
    if node.target is aten.addmm.default and _are_large(*node.args[1:]):
        bias, a, b = node.args
        return _product(graph, a, b, bias)
    if node.target is not aten.bmm.default or not _are_large(*node.args):
        return None
    pairs = [
        [graph.call_function(aten.select.int, (factor, 0, number)) for factor in node.args]
        for number in range(_value(node).shape[0])
    ]
    return graph.call_function(aten.stack.default, ([_product(graph, *pair) for pair in pairs],))


def _product(graph: Graph, a: Argument, b: Argument, bias: Argument = None) -> Node:
    """a b + bias, of matrices and a vector."""
    transposed = graph.call_function(aten.t.default, (b,))
    arguments: tuple[Argument, ...] = (a, transposed, bias, "none", [], "")
    return graph.call_function(torch.ops.mkldnn._linear_pointwise.default, arguments)


def _value(node: object) -> Tensor:
    assert isinstance(node, Node)
    value = node.meta["val"]
    assert isinstance(value, Tensor)
    return value


def _are_large(*factors: object) -> bool:
    values = [_value(factor) for factor in factors]
    return all(v.dtype == torch.float32 and min(v.shape[-2:]) >= LEAST_SIZE for v in values)


def lower_to_onednn() -> None:
    """Lets the compiler call oneDNN for weights that change; by itself it expects constants."""
    from torch._inductor import ir, lowering, mkldnn_ir

    def lowered(x: object, weight: object, bias: object, *rest: object) -> object:
        make = mkldnn_ir.LinearUnary.create
        made = make(x, weight, bias, *rest)  # type: ignore[no-untyped-call]
        return ir.TensorBox.create(made)

    for name in (
        torch.ops.mkldnn._linear_pointwise,
        torch.ops.mkldnn._linear_pointwise.default,
    ):
        lowering.lowerings[name] = lowered
