"""Functions compiled to loops without PyTorch, and compared with it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from engine.compilation.native.build import build, lowered, native_source
from engine.compilation.native.function import NativeFunction
from engine.compilation.native.grouping import Step
from engine.compilation.native_calls import rules_of_calls

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
PRODUCTS = rules_of_calls(1)
"""What lowers them, for one thread."""
Writing = Callable[..., tuple[()]]
"""Writes into its arguments."""


def traced(function: Writing, arguments: list[Tensor]) -> GraphModule:
    """Its graph."""
    graph: GraphModule = make_fx(function, tracing_mode="fake")(*arguments)
    return graph


def compiled(
    function: Writing,
    arguments: list[Tensor],
    directory: Path,
    objects: Sequence[Path] = (),
    num_threads: int = 1,
) -> NativeFunction:
    """Its library, linked with these objects."""
    source = native_source(traced(function, arguments), rules_of_calls(num_threads), num_threads)
    directory.mkdir(exist_ok=True)
    build(source, "g++", objects, directory / "made.so")
    return NativeFunction(directory / "made.so")


def steps_of(function: Writing, arguments: list[Tensor]) -> list[Step]:
    """What it is lowered to."""
    return lowered(traced(function, arguments), PRODUCTS)


def check(
    function: Writing,
    arguments: list[Tensor],
    directory: Path,
    atol: float = 1e-6,
    objects: Sequence[Path] = (),
) -> None:
    """That it writes the same as PyTorch."""
    expected, found = ([a.clone() for a in arguments] for _ in range(2))
    function(*expected)
    compiled(function, arguments, directory, objects).call(found)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=atol, rtol=1e-5, equal_nan=True)


def writing(function: Callable[..., list[Tensor]]) -> Writing:
    """Writes what a function returns into its last arguments."""

    def written(*arguments: Tensor) -> tuple[()]:
        count = function.__code__.co_argcount
        for to, value in zip(arguments[count:], function(*arguments[:count]), strict=True):
            to.copy_(value)
        return ()

    return written


def with_results(function: Callable[..., list[Tensor]], *inputs: Tensor) -> list[Tensor]:
    """Arguments of `writing(function)`."""
    return [*inputs, *(torch.zeros_like(value) for value in function(*inputs))]
