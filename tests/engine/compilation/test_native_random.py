"""Random programs of entries, views, sums and changes in place are what PyTorch computes."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.helpers.engine.native_loops import check, needs_compiler, with_results, writing

SIZE = (6, 20)
"""Of all that programs compute with; what they write may be smaller."""
UNARY: list[Callable[[Tensor], Tensor]] = [
    *(torch.abs, torch.neg, torch.exp, torch.tanh, torch.sigmoid, torch.sign, torch.relu),
    *(F.elu, F.silu, F.softplus, torch.isnan, torch.isfinite, torch.isinf),
    *(lambda x: x.abs().sqrt(), lambda x: 1 / (x.abs() + 0.5), lambda x: x.clamp(-0.5, 2)),
    *(lambda x: (x.abs() + 0.1).log(), lambda x: x.square(), lambda x: x * 0.0),
    *(lambda x: x.masked_fill(x != x, 0.25), lambda x: x.double().sin().float()),
]
BINARY: list[Callable[[Tensor, Tensor], Tensor]] = [
    *(torch.add, torch.sub, torch.mul, torch.maximum, torch.minimum),
    *(lambda x, y: torch.sub(x, y, alpha=3), lambda x, y: torch.rsub(x, y, alpha=2)),
    *(lambda x, y: torch.lerp(x, y, 0.3), lambda x, y: torch.addcmul(x, y, x, value=0.5)),
    *(lambda x, y: x / (y.abs() + 0.5), lambda x, y: torch.where(x.isnan(), y, x)),
    lambda x, y: torch.cat((x[:2], y[2:]), 0),
    lambda x, y: torch.stack((x, y), 1).sum(1),
]
VIEWS: list[Callable[[Tensor], Tensor]] = [
    *(lambda x: x[1:4], lambda x: x[:, ::2], lambda x: x[:, 3], lambda x: x.t()[2:9]),
    *(lambda x: x.reshape(-1)[5:], lambda x: x[:1].expand(4, 20), lambda x: x.view(2, 60)),
    lambda x: x[2:3].unsqueeze(1),
]
REDUCTIONS: list[Callable[[Tensor], Tensor]] = [
    *(
        lambda x: x.sum(0),
        lambda x: x.sum(1, keepdim=True),
        lambda x: x.mean(),
        lambda x: x.amax(0),
    ),
    *(lambda x: x.amin(1, keepdim=True), lambda x: x[:1, :1].sum(), lambda x: x.mean(0)),
    *(lambda x: torch.linalg.vector_norm(x), lambda x: x.softmax(1), lambda x: x.log_softmax(0)),
]
CHANGES: list[Callable[[Tensor, Tensor], object]] = [
    *(lambda x, y: x.add_(y), lambda x, y: x.mul_(y.tanh()), lambda x, _: x[1:].mul_(0.5)),
    *(lambda x, y: x[:, ::2].copy_(y[:, :10]), lambda x, _: x[0].zero_(), lambda x, y: x.copy_(y)),
    *(lambda x, _: x.t()[3:5].sub_(1), lambda x, _: x[3].fill_(0.25)),
]


def program(seed: int, inputs: list[Tensor]) -> list[Tensor]:
    """What a random program returns; equal seeds give equal programs."""
    chance = random.Random(seed)
    pool, results = [each.clone() for each in inputs], []
    for _ in range(chance.randint(5, 12)):
        kind = chance.choice(("unary", "binary", "binary", "view", "reduction", "change"))
        x, y = chance.choice(pool), chance.choice(pool)
        if kind == "change":
            chance.choice(CHANGES)(x, y.clone())
        elif kind == "view":
            results.append(chance.choice(UNARY)(chance.choice(VIEWS)(x)))
        else:
            value = (
                chance.choice(UNARY)(x)
                if kind == "unary"
                else chance.choice(BINARY)(x, y)
                if kind == "binary"
                else chance.choice(REDUCTIONS)(x)
            )
            results.append(value)
            pool.append(bounded(value.float()).expand(SIZE).clone())
    return [*results, *pool]


def bounded(x: Tensor) -> Tensor:
    """So that a rounding does not grow; what is no number stays so."""
    return x.clamp(-3, 3)


def of_programs(first: int, count: int) -> Callable[[Tensor, Tensor, Tensor], list[Tensor]]:
    def run(x: Tensor, y: Tensor, row: Tensor) -> list[Tensor]:
        inputs = [x, y, row.expand(SIZE)]
        return [each for seed in range(first, first + count) for each in program(seed, inputs)]

    return run


def check_programs(first: int, count: int, directory: Path) -> None:
    generator = torch.Generator().manual_seed(first)
    inputs = [torch.randn(size, generator=generator) for size in (SIZE, SIZE, (1, 20))]
    inputs[1][2, 3:6] = torch.tensor([torch.nan, torch.inf, -torch.inf])
    function = of_programs(first, count)
    check(writing(function), with_results(function, *inputs), directory, atol=2e-5)


@needs_compiler
def test_random_programs(tmp_path: Path):
    check_programs(0, 6, tmp_path)


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("first", range(100, 400, 10))
def test_many_random_programs(first: int, tmp_path: Path):
    check_programs(first, 10, tmp_path)
