"""How loops are run: by several threads, into arguments, and not at all if they change nothing."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from engine.compilation.native.grouping import LoopNest
from engine.compilation.native.sharing import parts_of
from engine.host.host_code import compile_object
from tests.helpers.engine.native_loops import (
    Writing,
    check,
    compiled,
    needs_compiler,
    steps_of,
    with_results,
    writing,
)


def of_many(x: Tensor, row: Tensor, wide: Tensor, flag: Tensor) -> list[Tensor]:
    """Of [300, 257] real, [257] real, [2, 300, 96] real and a truth value."""
    sums = [wide.sum(1), wide.sum(-1), wide.amax(0), wide.sum((0, 2))]
    return [torch.where(flag, x * row + 1, x), x.t().exp(), wide + wide[:, :1], *sums]


@needs_compiler
def test_threads_share_long_loops_and_change_no_bit(tmp_path: Path):
    inputs = [torch.randn(300, 257), torch.randn(257), torch.randn(2, 300, 96), torch.tensor(True)]
    arguments, function = with_results(of_many, *inputs), writing(of_many)
    check(function, arguments, tmp_path, atol=1e-4)
    kernel = compile_object("product.cpp", tmp_path, "tianji_product")
    alone = compiled(function, arguments, tmp_path / "alone")
    shared = compiled(function, arguments, tmp_path / "shared", [kernel], num_threads=3)
    source = (tmp_path / "shared" / "made.cpp").read_text()
    assert source.count("  in_parts<") == 7, "all of these loops are long"
    one, other = ([argument.clone() for argument in arguments] for _ in range(2))
    alone.call(one)
    for _ in range(20):
        for result in other[len(inputs) :]:
            result.fill_(math.nan)
        shared.call(other)
        assert all(torch.equal(x, y) for x, y in zip(one, other, strict=True))


@pytest.mark.parametrize("sizes", [(32768,), (40001,), (2, 300, 256), (3, 40000), (70000, 2)])
@pytest.mark.parametrize("num_threads", [2, 3, 16])
def test_parts_cover_an_axis(sizes: tuple[int, ...], num_threads: int):
    parts = parts_of(sizes, range(len(sizes)), math.prod(sizes), num_threads)
    assert parts is not None
    assert parts.size == sizes[parts.axis] == max(sizes)
    assert 0 < parts.length < parts.size
    assert -(-parts.size // parts.length) >= num_threads


def test_short_loops_and_those_of_one_thread_are_not_shared():
    assert parts_of((100, 300), (0, 1), 30000, 2) is None
    assert parts_of((40000,), (), 40000, 2) is None, "all of it is one sum"
    assert parts_of((40000,), (0,), 40000, 1) is None


def loop_sizes(function: Writing, *arguments: Tensor) -> list[tuple[int, ...]]:
    steps = steps_of(function, list(arguments))
    return [step.sizes for step in steps if isinstance(step, LoopNest)]


def joining(x: Tensor, y: Tensor, to: Tensor) -> tuple[()]:
    """Of 3, 5 and 10 entries."""
    to.copy_(torch.cat((x * to[:3], to[3:5], y.exp())))
    return ()


@needs_compiler
def test_parts_are_written_to_their_places(tmp_path: Path):
    arguments = [torch.randn(3), torch.randn(5), torch.randn(10)]
    check(joining, arguments, tmp_path)
    assert loop_sizes(joining, *arguments) == [(3,), (5,)], "what stays is not even read"


def exchanging(x: Tensor, to: Tensor) -> tuple[()]:
    to.copy_(torch.cat((to[5:], to[:5] + x)))
    return ()


def telling(x: Tensor, to: Tensor, told: Tensor) -> tuple[()]:
    joined = torch.cat((x, x * 2))
    told.copy_(to + joined)
    to.copy_(joined)
    return ()


def read_between(x: Tensor, to: Tensor, told: Tensor) -> tuple[()]:
    joined = torch.cat((x, x * 2))
    told.copy_(to * 3)
    to.copy_(joined)
    return ()


@needs_compiler
@pytest.mark.parametrize("function", [exchanging, telling, read_between])
def test_what_is_read_until_then_is_not_overwritten(function: Writing, tmp_path: Path):
    arguments = [torch.randn(5), torch.randn(10), torch.randn(10)]
    check(function, arguments[: function.__code__.co_argcount], tmp_path)


def choosing(flag: Tensor, x: Tensor, to: Tensor) -> tuple[()]:
    to.copy_(torch.where(flag, x + 1, to))
    return ()


def choosing_and_counting(flag: Tensor, x: Tensor, to: Tensor, count: Tensor) -> tuple[()]:
    choosing(flag, x, to)
    count.add_(1)
    return ()


def choosing_another(flag: Tensor, x: Tensor, to: Tensor) -> tuple[()]:
    to.copy_(torch.where(flag, x + 1, x))
    return ()


@needs_compiler
@pytest.mark.parametrize(
    ("function", "is_guarded"),
    [(choosing, True), (choosing_and_counting, False), (choosing_another, False)],
)
def test_a_loop_that_may_change_nothing_has_a_condition(
    function: Writing, is_guarded: bool, tmp_path: Path
):
    for flag in (True, False):
        inputs = [torch.tensor(flag), torch.randn(40), torch.randn(40), torch.zeros(40)]
        check(function, inputs[: function.__code__.co_argcount], tmp_path / str(flag))
        source = (tmp_path / str(flag) / "made.cpp").read_text()
        assert ("  if (v" in source) == is_guarded
