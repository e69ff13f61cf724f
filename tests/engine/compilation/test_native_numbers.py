"""Numbers that are large, small or none: loops without PyTorch compute what PyTorch does."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from engine.compilation.native.build import native_source
from engine.compilation.native.places import UnsupportedError
from tests.helpers.engine.native_loops import (
    PRODUCTS,
    check,
    compiled,
    needs_compiler,
    traced,
    with_results,
    writing,
)


@needs_compiler
def test_what_is_no_number_is_not_lost_in_a_product_with_zero(tmp_path: Path):
    def of_zero(x: Tensor) -> list[Tensor]:
        return [x * 0, 1.0 + 0.0 * x.sum(), torch.zeros_like(x) * x, torch.zeros_like(x) / x]

    x = torch.tensor([math.nan, math.inf, -math.inf, 0.0, 2.0] * 8)
    check(writing(of_zero), with_results(of_zero, x), tmp_path)


@needs_compiler
def test_whole_numbers_overflow_as_those_of_pytorch(tmp_path: Path):
    def of_large(i: Tensor) -> list[Tensor]:
        return [i + 1 > i, i * i, i + 1]

    i = torch.tensor([2**63 - 1, 5, -7, 2**62 + 3] * 5)
    check(writing(of_large), with_results(of_large, i), tmp_path)


@needs_compiler
def test_a_sum_of_one_entry_is_there_when_it_is_read(tmp_path: Path):
    def of_one(x: Tensor, y: Tensor) -> list[Tensor]:
        norm = torch.linalg.vector_norm
        return [norm(x) + 1, norm(torch.stack([norm(y)])), x.dot(x) * 2, x.sum() + x.mean()]

    inputs = [torch.tensor([-3.0]), torch.randn(40)]
    check(writing(of_one), with_results(of_one, *inputs), tmp_path, atol=1e-5)


def of_extremes(x: Tensor) -> list[Tensor]:
    flags = (torch.full_like(x > 0, 0.5), (x > 0).fill_(0.5))  # type: ignore[arg-type]
    large = torch.stack((x.abs() * 1e4, x.abs() * 1e4 + 1), 1)
    differences = torch.rsub(x, x * 2, alpha=3)
    return [x.isinf(), x.isfinite(), *flags, differences, large.log_softmax(-1)]


@needs_compiler
def test_extremes(tmp_path: Path):
    x = torch.tensor([1.0, 3e7, 1e30, math.inf, -math.inf, math.nan, -2.5])
    check(writing(of_extremes), with_results(of_extremes, x), tmp_path, atol=0)


@needs_compiler
def test_small_numbers_are_not_lost(tmp_path: Path):
    def of_small(x: Tensor, low: Tensor) -> list[Tensor]:
        return [F.elu(x), low.exp(), low.exp().log()]

    inputs = [torch.tensor([-1e-3, -1e-8, -0.3, -0.4, -2.0]), torch.linspace(-100, -85, 100)]
    check(writing(of_small), with_results(of_small, *inputs), tmp_path, atol=1e-38)


@needs_compiler
def test_tanh_ends_at_1(tmp_path: Path):
    def of_large(x: Tensor) -> list[Tensor]:
        return [x.tanh()]

    x = torch.tensor([8.0, 20.0, 3e37, math.inf, -8.0, -math.inf])
    arguments = with_results(of_large, x)
    compiled(writing(of_large), arguments, tmp_path).call(arguments)
    assert arguments[1].tolist() == [1.0] * 4 + [-1.0] * 2


@needs_compiler
def test_bytes(tmp_path: Path):
    def of_bytes(x: Tensor, rows: Tensor) -> list[Tensor]:
        return [
            *(x == -1, x < -1, x - 5, x * 3, ~x, x % 3),
            *(rows.all(), rows.any(), rows.all(0), rows.any(1)),
        ]

    inputs = torch.tensor([0, 1, 255]), torch.tensor([[1, 2], [4, 0]])
    few = [each.to(torch.uint8) for each in inputs]
    check(writing(of_bytes), with_results(of_bytes, *few), tmp_path)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: [x.view(torch.int32) + 1],
        lambda x: [torch.ops.aten.add.Scalar(x, 2, 3)],
        lambda x: [x % 2],
        lambda x: [(x > 0).to(torch.int64) % -1],
    ],
    ids=("another type", "a factor by position", "of fractions", "by -1"),
)
def test_what_has_another_meaning_is_refused(function: Callable[[Tensor], list[Tensor]]):
    arguments = with_results(function, torch.randn(6))
    with pytest.raises(UnsupportedError):
        native_source(traced(writing(function), arguments), PRODUCTS)


@needs_compiler
def test_adding_to_an_entry_out_of_bounds_is_an_error(tmp_path: Path):
    def scattered(x: Tensor, index: Tensor, added: Tensor) -> list[Tensor]:
        return [x.scatter_add(1, index, added)]

    inputs = [torch.randn(3, 4), torch.tensor([[0], [3], [1]]), torch.randn(3, 1)]
    arguments = with_results(scattered, *inputs)
    check(writing(scattered), arguments, tmp_path)
    function = compiled(writing(scattered), arguments, tmp_path / "again")
    for wrong in (4, -1):
        arguments[1][1, 0] = wrong
        with pytest.raises(IndexError):
            function.call(arguments)
