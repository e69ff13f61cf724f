"""A function becomes the graph that PyTorch's tracer makes of it."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from engine.compilation.native.recording import UnrecordableError, recorded
from engine.compilation.tracing import graph_of, traced_by_pytorch
from tests.helpers.paths import REPOSITORY


def operations(graph: GraphModule) -> list[str]:
    """What it does, to which earlier results, and the form of what comes out. PyTorch's tracer
    leaves out some of the views that are all of a tensor."""
    number: dict[Node, int] = {}
    for node in graph.graph.nodes:
        is_same = node.target is torch.ops.aten.detach.default
        number[node] = number[node.args[0]] if is_same else len(set(number.values()))

    def told(node: Node) -> str:
        arguments = torch.fx.node.map_arg(
            (node.args, dict(node.kwargs)), lambda each: f"%{number[each]}"
        )
        value = node.meta.get("val")
        values = [value] if isinstance(value, Tensor) else list(value or ())
        forms = [(tuple(v.shape), v.stride(), v.dtype, v.storage_offset()) for v in values]
        return f"{node.op} {'' if node.op == 'placeholder' else node.target} {arguments} {forms}"

    left = [node for node in graph.graph.nodes if node.target is not torch.ops.aten.detach.default]
    return [told(node) for node in left if node.op != "output"]


def both(function, arguments: list[Tensor]) -> tuple[list[str], list[str]]:
    before = [each.clone() for each in arguments]
    own = recorded(function, arguments)
    assert all(torch.equal(a, b) for a, b in zip(arguments, before, strict=True)), "not changed"
    return operations(own), operations(traced_by_pytorch(function, arguments))


def descend(weights: Tensor, inputs: Tensor, wanted: Tensor) -> tuple[()]:
    """A step down a gradient, in place."""

    def loss(of: Tensor) -> Tensor:
        return ((inputs @ of).tanh() * 2.0 - wanted).square().mean()

    gradient = torch.func.grad(loss)(weights)
    weights.sub_(0.1 * gradient)
    return ()


def choose(logits: Tensor, rows: Tensor, chosen: Tensor) -> tuple[()]:
    best, where = logits[rows].split(2, dim=1)[0].max(dim=1)
    chosen.copy_(torch.where(best > 0.5, where, torch.zeros_like(where)))
    return ()


def view(source: Tensor, to: Tensor) -> tuple[()]:
    to[1:, ::2].copy_(source.t()[1:, ::2] + source.new_ones(()))
    return ()


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (descend, [torch.randn(4, 3), torch.randn(8, 4), torch.randn(8, 3)]),
        (choose, [torch.rand(6, 4), torch.tensor([1, 5]), torch.zeros(2, dtype=torch.int64)]),
        (view, [torch.randn(4, 3), torch.randn(3, 4)]),
    ],
    ids=["gradient", "choice", "views"],
)
@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad])
def test_the_graph_is_that_of_pytorch(function, arguments: list[Tensor], mode):
    with mode():
        own, theirs = both(function, arguments)
    assert own == theirs


def test_what_it_was_given_may_be_no_indices():
    """What is traced with was never written, so it holds anything."""

    def take(source: Tensor, rows: Tensor, to: Tensor) -> tuple[()]:
        to.copy_(source[rows])
        return ()

    assert operations(recorded(take, [torch.rand(3), torch.tensor([2**40]), torch.zeros(1)]))


def test_foreign_tensors_and_values_are_refused():
    foreign = torch.ones(2)

    def read(x: Tensor) -> tuple[()]:
        x.add_(foreign)
        return ()

    def branch(x: Tensor) -> tuple[()]:
        if x.sum() > 0:
            x.zero_()
        return ()

    for function in (read, branch):
        with pytest.raises(UnrecordableError):
            recorded(function, [torch.zeros(2)])
        with pytest.raises((RuntimeError, AssertionError)):
            graph_of(function, [torch.zeros(2)])


WITHOUT_COMPILERS = """
import sys, torch
from engine.compilation.tracing import graph_of
graph_of(lambda x: (x.mul_(2.0), ())[1], [torch.ones(3)])
print(sorted({"sympy", "torch._dynamo", "torch._inductor"} & set(sys.modules)))
"""


@pytest.mark.cold
def test_the_compilers_of_pytorch_are_not_read():
    found = subprocess.run(
        [sys.executable, "-c", WITHOUT_COMPILERS],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        check=True,
    )
    assert found.stdout == "[]\n"
