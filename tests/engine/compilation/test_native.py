"""Loops without PyTorch compute what PyTorch does."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from engine.compilation.native.build import native_source
from engine.compilation.native.grouping import LoopNest, buffers_of, stored
from engine.compilation.native.memory import laid_out
from engine.compilation.native.places import FunctionCall, UnsupportedError
from tests.helpers.engine.native_loops import (
    PRODUCTS,
    check,
    compiled,
    needs_compiler,
    steps_of,
    traced,
    with_results,
    writing,
)


def of_entries(x: Tensor, y: Tensor, flag: Tensor, count: Tensor) -> list[Tensor]:
    """Of [6, 5] real, [5] real, [6, 5] truth values and [6, 1] whole numbers."""
    positive = x.abs() + 0.1
    return [
        *(x + y, x - 2 * y, x * count, x / positive, 1 - x, -x, x**2, positive**1.5, 0.9**count),
        *(positive.sqrt(), positive.rsqrt(), positive.reciprocal(), x.square(), x.sign()),
        *(x.clamp(-0.5, 0.5), x.clamp(min=0.1), torch.maximum(x, y), torch.minimum(x, y)),
        *(torch.where(flag, x, y), x.masked_fill(flag, 3.0), x.lerp(y, 0.1), x.lerp(y, 0.9)),
        *(
            torch.addcmul(x, x, y, value=-2),
            torch.addcdiv(x, x, positive, value=0.5),
            flag & (x > y),
            ~flag,
            flag | ~flag,
        ),
        *(x.float() + flag, (x >= 0.3).float(), (count % 2 == 0).to(torch.float64), x != y),
        *(torch.isfinite(x), torch.isnan(x), torch.logical_and(flag, count), x.relu(), ~flag),
        *(
            F.softplus(x),
            F.smooth_l1_loss(x, y.expand(6, 5), reduction="none"),
            F.silu(x),
            F.elu(x),
        ),
        *(x.double().sin(), x.double().cos() + count, torch.full_like(x, math.inf), count + 1),
    ]


@needs_compiler
def test_entries(tmp_path: Path):
    inputs = [torch.randn(6, 5), torch.randn(5), torch.rand(6, 5) < 0.5, torch.arange(6)[:, None]]
    check(writing(of_entries), with_results(of_entries, *inputs), tmp_path)


def functions_of(x: Tensor) -> list[Tensor]:
    return [x.exp(), x.log(), x.tanh(), x.log1p(), x.erf(), x.sigmoid(), x.abs().sqrt(), x.sin()]


@needs_compiler
def test_functions_everywhere(tmp_path: Path):
    """From the smallest number to the largest, with vectors and the rest of a loop."""
    scales = 10.0 ** torch.arange(-40, 39, 0.25)
    few = torch.linspace(-12, 12, 1001)
    special = torch.tensor([0.0, math.inf, -math.inf, math.nan, 88.72, 88.73, -87.4, -103.0])
    x = torch.cat((scales, -scales, few, special))
    check(writing(functions_of), with_results(functions_of, x), tmp_path)


def of_rows(x: Tensor, wide: Tensor) -> list[Tensor]:
    """Of [7, 3] and [4, 5, 40]."""
    gradient = torch.ops.aten._log_softmax_backward_data(x, x.log_softmax(-1), -1, x.dtype)
    return [
        *(x.sum(), x.mean(), x.sum(0), x.mean(-1), x.sum(1, keepdim=True), x.amax(-1), x.amin(0)),
        *(
            wide.sum(-1),
            wide.sum(0),
            wide.sum((0, 1)),
            wide.mean((1, 2)),
            wide.amax(2),
            wide.amin(),
        ),
        *(
            wide.amin(),
            (wide < 9).all(),
            (wide > 9).any(),
            torch.linalg.vector_norm(wide),
            x[0].dot(x[1]),
        ),
        *(x.argmax(-1), x.max(-1).values, x.max(0).indices, x[:, :1].expand(7, 50).amax(1)),
        *(x.log_softmax(-1), x.softmax(0), gradient, wide[1:2, :1, ::2].sum(1)),
    ]


@needs_compiler
def test_sums_and_the_largest(tmp_path: Path):
    inputs = [torch.randn(7, 3), torch.randn(4, 5, 40)]
    inputs[0][2, 1] = math.nan
    check(writing(of_rows), with_results(of_rows, *inputs), tmp_path, atol=1e-5)


def test_no_loop_reads_a_sum_that_it_computes():
    def function(x: Tensor, to: Tensor) -> tuple[()]:
        to.copy_(x.sum() + x)
        return ()

    steps = steps_of(function, [torch.randn(40), torch.randn(40)])
    assert [step.sizes for step in steps if isinstance(step, LoopNest)] == [(40,), (40,)]


def of_parts(x: Tensor, rows: Tensor, choice: Tensor) -> list[Tensor]:
    """Of [6, 4], 3 rows of it, and one of 4 for each of 6."""
    left, right = x.split(2, dim=-1)
    chosen = x.gather(-1, choice[:, None])
    return [
        *(
            x.index_select(0, rows),
            x.t()[1:3] + 1,
            x.view(24)[3:20],
            torch.cat((left, x, x[:, 4:], right), 1),
        ),
        *(torch.stack((x[0], x[5])), chosen.squeeze(-1), x.unsqueeze(1).expand(6, 2, 4) * 2),
        *(torch.zeros_like(x).scatter_add(-1, choice[:, None], chosen), x.transpose(0, 1).clone()),
        torch.ops.aten.slice_backward(x[1:5], [6, 4], 0, 1, 5, 1),
        torch.ops.aten.select_backward(x[1], [6, 4], 0, 4),
        *(torch.eye(3) + x[:3, :1], torch.arange(3, 15, 4) * rows, rows.to(torch.int8)),
    ]


@needs_compiler
def test_parts_and_choices(tmp_path: Path):
    inputs = [torch.randn(6, 4), torch.tensor([5, 0, 0]), torch.tensor([0, 3, 1, 2, 2, 0])]
    check(writing(of_parts), with_results(of_parts, *inputs), tmp_path)


def changing(x: Tensor, total: Tensor, rows: Tensor) -> tuple[()]:
    """In place: what is read after a change is not what was read before."""
    before = x + 1
    x.mul_(2)
    x[1:].add_(before[:-1])
    total.add_(before.sum(0)).add_(x.sum(0))
    rows[0].copy_(total)
    carried = rows[0]
    for row in rows[1:].unbind():
        carried = torch.addcmul(row, carried, total, out=row)
    x.copy_(before - x)
    return ()


@needs_compiler
def test_changes_in_place_keep_their_order(tmp_path: Path):
    check(changing, [torch.randn(5, 20), torch.randn(20), torch.randn(4, 20)], tmp_path, atol=1e-4)


@needs_compiler
def test_an_index_out_of_bounds_is_an_error(tmp_path: Path):
    def chosen(x: Tensor, rows: Tensor) -> list[Tensor]:
        return [x.index_select(0, rows)]

    arguments = with_results(chosen, torch.randn(6, 4), torch.tensor([5, 0]))
    function = compiled(writing(chosen), arguments, tmp_path)
    for wrong in (6, -1):
        with pytest.raises(IndexError):
            function.call([arguments[0], torch.tensor([0, wrong]), arguments[2]])


def test_what_loops_cannot_compute_is_refused():
    def onto_itself(x: Tensor) -> tuple[()]:
        torch.ops.aten.copy_(x, x.t())
        return ()

    with pytest.raises(UnsupportedError):
        native_source(traced(onto_itself, [torch.randn(3, 3)]), PRODUCTS)
    images, weights = torch.randn(1, 3, 8, 8), torch.randn(2, 3, 3, 3)
    for function, arguments in (
        (lambda x: [x.sort().values], [torch.randn(5)]),
        (lambda x: [x + 1], [torch.randn(5).bfloat16()]),
        (lambda x, w: [F.conv2d(x, w)], [images, weights]),
    ):
        graph = traced(writing(function), with_results(function, *arguments))
        with pytest.raises(UnsupportedError):
            native_source(graph, PRODUCTS)
    with pytest.raises(UnsupportedError, match="a result"):
        native_source(traced(lambda x: x + 1, [torch.randn(3)]), PRODUCTS)


def adam(vector: Tensor, mean: Tensor, gradient: Tensor) -> tuple[()]:
    clipped = gradient * (0.5 / torch.linalg.vector_norm(gradient)).clamp(max=1.0)
    moved = mean.lerp(clipped, 0.1)
    vector.copy_(vector - 0.01 * moved / (moved.abs() + 1e-8))
    mean.copy_(moved)
    return ()


def test_entries_of_the_same_tensors_share_a_loop():
    steps = steps_of(adam, [torch.randn(30) for _ in range(3)])
    sizes = [step.sizes for step in steps if isinstance(step, LoopNest)]
    assert sizes == [(30,), (), (30,)], "the norm, its factor, and all else"


def test_a_loop_is_not_joined_past_a_change_of_what_it_reads():
    def function(x: Tensor, y: Tensor, z: Tensor) -> tuple[()]:
        y.copy_(x + 1)
        x[:2].zero_()
        z.copy_(x + 2)
        return ()

    steps = steps_of(function, [torch.randn(8) for _ in range(3)])
    assert [step.sizes for step in steps if isinstance(step, LoopNest)] == [(8,), (2,), (8,)]


def test_products_write_into_the_gradient_of_all_parameters():
    def function(a: Tensor, b: Tensor, to: Tensor) -> tuple[()]:
        to.copy_(torch.cat(((a @ b).view(-1), a.sum(0))) * 2)
        return ()

    steps = steps_of(function, [torch.randn(20, 8), torch.randn(8, 4), torch.randn(88)])
    assert [type(step) for step in steps[:1]] == [FunctionCall]
    loops = [step for step in steps if isinstance(step, LoopNest)]
    assert [step.sizes for step in loops] == [(88,)], "nothing is copied"


def test_buffers_that_are_needed_at_once_lie_apart():
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(9, 4, generator=generator), torch.randn(4, 30, generator=generator)]

    def function(x: Tensor, w: Tensor, to: Tensor) -> tuple[()]:
        h = x @ w
        rows = [h.sum(1, keepdim=True) * k for k in range(4)]
        to.copy_(sum((h * row).tanh() @ w.t() for row in rows) + h @ w.t())
        return ()

    steps = steps_of(function, [*inputs, torch.zeros(9, 4)])
    needed = stored(steps)
    memory = laid_out(steps, needed)
    used: dict[object, list[int]] = {}
    for at, step in enumerate(steps):
        for buffer in buffers_of(step):
            if buffer in memory.offsets:
                used.setdefault(buffer, []).append(at)
    placed = [(b, memory.offsets[b], memory.offsets[b] + b.num_bytes) for b in memory.offsets]
    for one, start, end in placed:
        for other, low, high in placed:
            together = used[one][0] <= used[other][-1] and used[other][0] <= used[one][-1]
            assert one is other or not together or end <= low or high <= start
    assert memory.num_bytes < sum(b.num_bytes for b in memory.offsets), "some share memory"


@needs_compiler
def test_single_calls_take_one_row_after_the_other_and_no_more_than_there_are(tmp_path: Path):
    def add(total: Tensor, row: Tensor, so_far: Tensor) -> tuple[()]:
        total.add_(row)
        so_far.copy_(total)
        return ()

    total, rows, so_far = torch.zeros(2), torch.randn(3, 4)[:, ::2], torch.zeros(3, 2)
    function = compiled(add, [total, rows[0], so_far[0]], tmp_path)
    call = function.calls([total], [rows, so_far])
    for t in range(3):
        call()
        torch.testing.assert_close(so_far[t], rows[: t + 1].sum(0))
    with pytest.raises(IndexError, match="more rows than there are"):
        call()
