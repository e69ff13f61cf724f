"""Loops without PyTorch call products and sums in time of every shape."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from engine.algorithms.returns import accumulate
from engine.compilation.native.build import native_source
from engine.compilation.native.places import UnsupportedError
from engine.compilation.product_kernel import ProductKernel
from engine.host.host_code import ACCUMULATE, compile_object
from tests.helpers.engine.native_loops import (
    PRODUCTS,
    check,
    needs_compiler,
    traced,
    with_results,
    writing,
)


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    directory = tmp_path_factory.mktemp("objects")
    accumulate = compile_object("accumulate.cpp", directory, ACCUMULATE)
    return [ProductKernel(directory).object, accumulate]


def of_biases(
    x: Tensor, w: Tensor, row: Tensor, full: Tensor, column: Tensor, batch: Tensor
) -> list[Tensor]:
    """Of [4, 3] and [3, 4], with biases [4], [4, 4], [4, 1] and [2, 1, 4]."""
    addmm = torch.addmm
    narrow = addmm(column, x, w[:, :1])
    changed = full.clone().addmm_(x, w)
    many = torch.bmm(x.expand(2, 4, 3), w.expand(2, 3, 4)) + batch
    return [*(addmm(each, x, w) for each in (row, row[None], full, column)), narrow, changed, many]


@needs_compiler
def test_products_add_biases_of_every_shape(tmp_path: Path, objects: list[Path]):
    sizes = ((4, 3), (3, 4), (4,), (4, 4), (4, 1), (2, 1, 4))
    inputs = [torch.randn(size) for size in sizes]
    arguments = with_results(of_biases, *inputs)
    check(writing(of_biases), arguments, tmp_path, atol=1e-5, objects=objects)


@needs_compiler
def test_sums_in_time_of_any_rank(tmp_path: Path, objects: list[Path]):
    def of_time(delta: Tensor, trace: Tensor) -> list[Tensor]:
        later = accumulate(delta[:, :, 0], trace[:, :1, 0])
        return [later, accumulate(delta, trace), accumulate(delta[:, 0, 0], trace[:, 0, 0])]

    inputs = [torch.randn(4, 3, 2), torch.rand(4, 3, 2)]
    check(writing(of_time), with_results(of_time, *inputs), tmp_path, objects=objects)


@needs_compiler
def test_products_copied_to_the_same_memory_in_turn(tmp_path: Path, objects: list[Path]):
    def in_turn(x: Tensor, y: Tensor, z: Tensor) -> list[Tensor]:
        one, other, both = x @ y, x @ z, torch.empty(4, 4)
        first = torch.cat([one], out=both) * 2
        return [first, torch.cat([other], out=both) * 1]

    inputs = [torch.randn(4, 4) for _ in range(3)]
    arguments = with_results(in_turn, *inputs)
    check(writing(in_turn), arguments, tmp_path, atol=1e-5, objects=objects)


def test_products_and_sums_over_nothing_are_refused():
    for function in (
        lambda x: [x[:, :0] @ x[:0]],
        lambda x: [x[:0].sum() + 1],
        lambda x: [x[:0].sum(0)],
        lambda x: [torch.linalg.vector_norm(x[:0])],
    ):
        arguments = with_results(function, torch.randn(3, 3))
        with pytest.raises(UnsupportedError, match="without entries"):
            native_source(traced(writing(function), arguments), PRODUCTS)
