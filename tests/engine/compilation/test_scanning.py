"""A scan is the same calls one after the other, as single ones are."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from engine.compilation.library import Library, PyTorchFunction, describe, put_library

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # of the compiler, which is PyTorch's own
    pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler"),
]


def add_up(total: Tensor, of_even: Tensor, values: Tensor, index: Tensor, so_far: Tensor):
    """In place on all but `values` and `index`."""
    total.add_(values.sum(1))
    of_even.add_((values[:, :1] * (index % 2 == 0)).to(torch.float64))
    so_far.copy_(total)
    return ()


@pytest.mark.parametrize("how", ["by loops", "by PyTorch", "by PyTorch, row by row"])
def test_what_a_call_carries_is_read_by_the_next(how: str, tmp_path: Path):
    from torch.fx.experimental.proxy_tensor import make_fx

    from engine.compilation.compiler import compile_by_pytorch, compile_graph

    wide = torch.randn(5, 3, 8)
    rows = [wide[..., ::2], torch.arange(5), torch.zeros(5, 6)[:, ::2]]
    fixed = [torch.zeros(3), torch.zeros(3, 1, dtype=torch.float64)]
    first = [*fixed, *(each[0] for each in rows)]
    graph = make_fx(add_up, tracing_mode="fake")(*first)
    made = tmp_path / "made.so"
    if how == "by loops":
        assert compile_graph(graph, tuple(first), made, tmp_path) == ""
    else:
        compile_by_pytorch(graph, tuple(first), made, tmp_path)
    signature = describe({str(i): each for i, each in enumerate(first)})
    put_library(made, signature, tmp_path / "library.so")
    expected = [each.clone() for each in fixed]
    totals = torch.zeros(5, 3)
    for values, index, so_far in zip(*rows[:2], totals, strict=True):
        add_up(*expected, values, index, so_far)

    function = Library(tmp_path / "library.so").function
    if how != "by loops":
        assert isinstance(function, PyTorchFunction)
        assert function.scanner is not None
        function.scanner = None if how.endswith("row by row") else function.scanner
    function.scan(fixed, rows)
    for one, other in zip([*fixed, rows[2]], [*expected, totals], strict=True):
        torch.testing.assert_close(one, other)
    for each in (*fixed, rows[2]):
        each.zero_()
    call = function.calls(fixed, rows)
    for so_far, total in zip(rows[2], totals, strict=True):
        call()
        torch.testing.assert_close(so_far, total)
