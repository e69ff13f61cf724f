"""Graphs of loops are compiled without PyTorch's compiler, all others by it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from engine.algorithms.returns import accumulate
from engine.compilation import compiler, product_kernel
from engine.compilation.library import PyTorchFunction
from engine.compilation.native.function import NativeFunction

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")


@pytest.fixture
def left_to_pytorch(monkeypatch: pytest.MonkeyPatch) -> list[GraphModule]:
    left: list[GraphModule] = []
    monkeypatch.setattr(compiler, "compile_by_pytorch", lambda graph, *_: left.append(graph))
    return left


def compiled(
    function: Callable[..., tuple[()]],
    arguments: list[Tensor],
    directory: Path,
    *,
    adapts: bool = True,
) -> str:
    graph = make_fx(function, tracing_mode="fake")(*arguments)
    made = directory / "made.so"
    return compiler.compile_graph(graph, tuple(arguments), made, directory, adapts=adapts)


def layer(x: Tensor, w: Tensor, to: Tensor) -> tuple[()]:
    to.copy_((x @ w.t()).tanh().sum(0))
    return ()


def test_products_and_loops_need_no_pytorch(tmp_path: Path, left_to_pytorch: list[GraphModule]):
    arguments = [torch.randn(40, 16), torch.randn(8, 16), torch.zeros(8)]
    line = compiled(layer, arguments, tmp_path, adapts=False)
    assert line.startswith("1 of 1 products by a kernel compiled for this processor")
    assert not left_to_pytorch
    NativeFunction(tmp_path / "made.so").call(arguments)
    expected = (arguments[0] @ arguments[1].t()).tanh().sum(0)
    torch.testing.assert_close(arguments[2], expected, atol=1e-5, rtol=1e-5)


def test_other_operations_are_left_to_pytorch(tmp_path: Path, left_to_pytorch: list[GraphModule]):
    def ordered(x: Tensor, to: Tensor) -> tuple[()]:
        to.copy_(x.sort().values)
        return ()

    line = compiled(ordered, [torch.randn(5), torch.zeros(5)], tmp_path)
    assert line.startswith("by PyTorch's compiler: aten.sort")
    assert len(left_to_pytorch) == 1


def test_what_fails_in_loops_is_left_to_pytorch(
    tmp_path: Path, left_to_pytorch: list[GraphModule], monkeypatch: pytest.MonkeyPatch
):
    def fails(*_: object) -> str:
        raise KeyError("an argument")

    monkeypatch.setattr(compiler, "native_source", fails)
    arguments = [torch.randn(40, 16), torch.randn(8, 16), torch.zeros(8)]
    line = compiled(layer, arguments, tmp_path, adapts=False)
    assert line.startswith("by PyTorch's compiler: KeyError in loops: 'an argument'")
    assert len(left_to_pytorch) == 1


@pytest.mark.parametrize("failing", ["build", "ProductKernel"])
def test_a_failed_compiler_is_replaced_by_pytorch_only_where_results_may_differ(
    tmp_path: Path,
    left_to_pytorch: list[GraphModule],
    monkeypatch: pytest.MonkeyPatch,
    failing: str,
):
    def fails(*_: object) -> None:
        raise subprocess.CalledProcessError(1, "g++")

    monkeypatch.setattr(compiler, failing, fails)
    arguments = [torch.randn(40, 16), torch.randn(8, 16), torch.zeros(8)]
    compiled(layer, arguments, tmp_path)
    assert len(left_to_pytorch) == 1
    with pytest.raises(subprocess.CalledProcessError):
        compiled(layer, arguments, tmp_path, adapts=False)
    assert len(left_to_pytorch) == 1


def test_what_is_left_to_pytorch_keeps_its_products(
    tmp_path: Path, left_to_pytorch: list[GraphModule], monkeypatch: pytest.MonkeyPatch
):
    """The kernel's are those that are faster one by one, and not all that loops would call."""
    seconds = product_kernel._Seconds(theirs=1e-6, ours=1.05e-6)
    monkeypatch.setattr(product_kernel.ProductKernel, "_measure", lambda *_: seconds)

    def rounded(x: Tensor, w: Tensor, to: Tensor) -> tuple[()]:
        to.copy_((x @ w).floor())
        return ()

    arguments = [torch.randn(8, 6), torch.randn(6, 5), torch.zeros(8, 5)]
    assert "aten.floor" in compiled(rounded, arguments, tmp_path)
    (graph,) = left_to_pytorch
    assert "tianji" not in str(graph.graph)


def test_a_library_that_cannot_be_called_is_found_out(tmp_path: Path):
    """Its C++ calls a function that is not there."""
    source = 'extern "C" int nowhere(); extern "C" int tianji_scan() { return nowhere(); }'
    (tmp_path / "made.cpp").write_text(source)
    command = ["g++", "-fPIC", "-shared", "-Wl,-z,now", "made.cpp", "-o", "made.so"]
    subprocess.run(command, cwd=tmp_path, check=True)
    with pytest.raises(OSError, match="nowhere"):
        compiler.call_once(tmp_path / "made.so", (torch.zeros(2),))


def test_products_that_pytorch_computes_faster_are_left_to_it(
    tmp_path: Path, left_to_pytorch: list[GraphModule], monkeypatch: pytest.MonkeyPatch
):
    seconds = product_kernel._Seconds(theirs=1e-5, ours=2e-5)
    monkeypatch.setattr(product_kernel.ProductKernel, "_measure", lambda *_: seconds)
    line = compiled(layer, [torch.randn(40, 16), torch.randn(8, 16), torch.zeros(8)], tmp_path)
    assert "its products are faster" in line
    assert len(left_to_pytorch) == 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the compiler, which is PyTorch's own
def test_pytorch_sums_in_time_of_any_rank(tmp_path: Path):
    def of_time(delta: Tensor, trace: Tensor, to: Tensor, other: Tensor) -> tuple[()]:
        to.copy_(accumulate(delta, trace))
        other.copy_(accumulate(delta[:, :, 0], trace[:, :1, 0]))
        return ()

    arguments = [torch.randn(4, 3, 2), torch.rand(4, 3, 2), torch.zeros(4, 3, 2), torch.zeros(4, 3)]
    graph = make_fx(of_time, tracing_mode="fake")(*arguments)
    compiler.compile_by_pytorch(graph, tuple(arguments), tmp_path / "made.so", tmp_path)
    expected = [each.clone() for each in arguments]
    of_time(*expected)
    PyTorchFunction(tmp_path / "made.so").call(arguments)
    for one, other in zip(arguments, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_library_that_asks_pytorch_for_operations_is_refused(tmp_path: Path):
    @torch.library.custom_op("tests::halved", mutates_args=())
    def halved(x: Tensor) -> Tensor:
        return x / 2

    halved.register_fake(torch.empty_like)

    def of_halves(x: Tensor, to: Tensor) -> tuple[()]:
        to.copy_(halved(x))
        return ()

    arguments = (torch.randn(4), torch.zeros(4))
    graph = make_fx(of_halves, tracing_mode="fake")(*arguments)
    with pytest.raises(RuntimeError, match="operations that a library cannot call"):
        compiler.compile_by_pytorch(graph, arguments, tmp_path / "made.so", tmp_path)
