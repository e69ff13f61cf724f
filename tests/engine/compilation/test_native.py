"""Loops without PyTorch compute what PyTorch does."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from engine.algorithms.returns import accumulate
from engine.compilation.host_code import ACCUMULATE, compile_object
from engine.compilation.native.build import build, native_source
from engine.compilation.native.function import NativeFunction
from engine.compilation.native.grouping import LoopNest, Step, buffers_of, grouped, stored
from engine.compilation.native.lowering import Lowering
from engine.compilation.native.memory import laid_out, without_copies
from engine.compilation.native.places import FunctionCall, UnsupportedError
from engine.compilation.native.rules import RULES
from engine.compilation.native_calls import rules_of_calls
from engine.compilation.product_kernel import ProductKernel

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
PRODUCTS = rules_of_calls(1)
Writing = Callable[..., tuple[()]]
"""Writes into its arguments."""


def traced(function: Writing, arguments: list[Tensor]) -> GraphModule:
    graph: GraphModule = make_fx(function, tracing_mode="fake")(*arguments)
    return graph


def compiled(
    function: Writing, arguments: list[Tensor], directory: Path, objects: Sequence[Path] = ()
) -> NativeFunction:
    source = native_source(traced(function, arguments), PRODUCTS)
    build(source, "g++", objects, directory / "made.so")
    return NativeFunction(directory / "made.so")


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
    return [*inputs, *(torch.zeros_like(value) for value in function(*inputs))]


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


def test_no_loop_reads_a_sum_that_it_computes():
    def function(x: Tensor, to: Tensor) -> tuple[()]:
        to.copy_(x.sum() + x)
        return ()

    steps = steps_of(function, [torch.randn(40), torch.randn(40)])
    assert [step.sizes for step in steps if isinstance(step, LoopNest)] == [(40,), (40,)]


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


def of_parts(x: Tensor, rows: Tensor, choice: Tensor) -> list[Tensor]:
    """Of [6, 4], 3 rows of it, and one of 4 for each of 6."""
    left, right = x.split(2, dim=-1)
    chosen = x.gather(-1, choice[:, None])
    return [
        *(
            x.index_select(0, rows),
            x.t()[1:3] + 1,
            x.view(24)[3:20],
            torch.cat((left, x, right), 1),
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


def steps_of(function: Writing, arguments: list[Tensor]) -> list[Step]:
    lowering = Lowering(traced(function, arguments), {**RULES, **PRODUCTS})
    return grouped(without_copies(lowering.builder.operations))


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
