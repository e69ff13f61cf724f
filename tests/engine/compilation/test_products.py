"""Products by the kernel of a host are those of PyTorch's BLAS library, to rounding."""

from __future__ import annotations

import inspect
import os
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import psutil
import pytest
import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from engine.algorithms import gradient
from engine.blueprint import Blueprint, make_blueprint
from engine.compilation import compiler, product_kernel
from engine.compilation.compiled import CompiledSteps
from engine.compilation.compiler import write_library
from engine.compilation.library import Library, sources_of
from engine.compilation.native.build import native_source
from engine.compilation.native_calls import rules_of_calls
from engine.compilation.product_kernel import ProductKernel
from engine.compilation.products import (
    NOTHING,
    RELU,
    RELU_GRADIENT,
    TANH,
    TANH_GRADIENT,
    Shape,
    finished,
    replace_products,
)
from engine.compilation.staging import SampleStaging
from engine.compilation.tracing import record, trace_steps
from engine.spec import EnvSpec, NetworkSpec, StalenessSpec
from engine.testing import make_experiment


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> ProductKernel:
    return ProductKernel(tmp_path_factory.mktemp("kernel"))


def random(*size: int, is_transposed: bool = False) -> Tensor:
    *batch, rows, columns = size
    return (
        torch.randn(*batch, columns, rows).mT
        if is_transposed
        else torch.randn(*batch, rows, columns)
    )


SIZES = [
    *((1, 1, 1), (8, 4, 64), (200, 64, 2), (5, 1, 33), (17, 70, 31), (13, 16, 96)),
    *((9, 1200, 40), (3, 600, 7), (64, 33, 200), (256, 256, 256)),
]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("transposed", [(False, False), (False, True), (True, False), (True, True)])
def test_it_multiplies(
    kernel: ProductKernel, size: tuple[int, int, int], transposed: tuple[bool, bool]
):
    torch.manual_seed(0)
    rows, depth, columns = size
    a = random(rows, depth, is_transposed=transposed[0])
    b = random(depth, columns, is_transposed=transposed[1])
    bias, beside = torch.randn(columns), torch.rand(rows, columns) - 0.5
    for then in (NOTHING, RELU, TANH, RELU_GRADIENT, TANH_GRADIENT):
        out = torch.full((rows, columns), torch.nan)
        kernel.multiply(out, a, b, then=then, bias=bias, beside=beside)
        exact = finished(a.double() @ b.double() + bias, beside.double(), then)
        torch.testing.assert_close(out.double(), exact, atol=4e-6 * depth**0.5, rtol=1e-5)


@pytest.mark.parametrize("batch", [1, 2])
def test_one_column_is_computed_as_one_row(kernel: ProductKernel, batch: int):
    """As in the gradient of weights of a critic's last layer, where both lie in memory alike."""
    torch.manual_seed(0)
    a, b = random(batch, 40, 70, is_transposed=True), random(batch, 70, 1)
    beside, out = torch.rand(batch, 40, 1) - 0.5, torch.full((batch, 40, 1), torch.nan)
    for then in (NOTHING, RELU_GRADIENT):
        kernel.multiply(out, a, b, then=then, beside=beside)
        torch.testing.assert_close(out, finished(a @ b, beside, then), atol=1e-5, rtol=1e-5)


@pytest.fixture(scope="module")
def threaded(tmp_path_factory: pytest.TempPathFactory) -> ProductKernel:
    return ProductKernel(tmp_path_factory.mktemp("threaded"), num_threads=3)


SHARED = [
    (2, 256, 96, 200),
    (1, 300, 600, 70),
    (1, 3000, 100, 1),
    (1, 5000, 60, 7),
    (1, 40, 96, 40),
]


@pytest.mark.parametrize("size", SHARED, ids=str)
def test_threads_share_large_products(
    kernel: ProductKernel, threaded: ProductKernel, size: tuple[int, int, int, int]
):
    torch.manual_seed(0)
    batch, rows, depth, columns = size
    a, b = random(batch, rows, depth), random(batch, depth, columns, is_transposed=True)
    one, other = torch.empty(batch, rows, columns), torch.empty(batch, rows, columns)
    kernel.multiply(one, a, b, then=TANH)
    for _ in range(20):
        other.fill_(torch.nan)
        threaded.multiply(other, a, b, then=TANH, count=10)
        assert torch.equal(one, other), "whoever computes an entry adds in the same order"


def test_helpers_compute_beside_the_caller(tmp_path: Path):
    kernel, process = ProductKernel(tmp_path, num_threads=2), psutil.Process()
    a, b, out = random(256, 256), random(256, 256), torch.empty(256, 256)
    b @ a  # PyTorch's threads, if it has any, are there before
    known = {thread.id for thread in process.threads()}
    busy_s, deadline_s = 0.0, time.monotonic() + 60
    while busy_s == 0.0 and time.monotonic() < deadline_s:
        kernel.multiply(out, a, b, then=NOTHING, count=100)
        helpers = [thread for thread in process.threads() if thread.id not in known]
        busy_s = sum(helper.user_time for helper in helpers)
    assert len(helpers) == 1
    assert busy_s > 0.0
    torch.testing.assert_close(out, a @ b, atol=1e-4, rtol=1e-5)


def test_a_forked_process_has_helpers_of_its_own(threaded: ProductKernel):
    a, b = random(256, 256), random(256, 256)
    out, alone = torch.empty(256, 256), torch.empty(256, 256)
    threaded.multiply(out, a, b, then=NOTHING)  # the helpers of this process
    child = os.fork()
    if child == 0:
        threaded.multiply(alone, a, b, then=NOTHING, count=10)
        os._exit(len(os.listdir("/proc/self/task")) if torch.equal(alone, out) else 0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 3


def test_of_several_matrices_each_is_multiplied(kernel: ProductKernel):
    a, b = random(3, 14).expand(2, 3, 14), random(2, 14, 20, is_transposed=True)
    out = torch.empty(2, 3, 20)
    kernel.multiply(out, a, b, then=NOTHING)
    torch.testing.assert_close(out, a @ b, atol=1e-5, rtol=1e-5)


def test_tanh_is_right_to_rounding_everywhere(kernel: ProductKernel):
    x = torch.cat((torch.linspace(-12, 12, 20001), torch.logspace(-30, 1, 1000)))[:, None]
    out = torch.empty_like(x)
    kernel.multiply(out, x, torch.ones(1, 1), then=TANH)
    torch.testing.assert_close(out.double(), x.double().tanh(), atol=3e-7, rtol=1e-6)
    assert out[x > 8].unique().tolist() == [1.0]


@pytest.mark.parametrize("then", [NOTHING, RELU, TANH, RELU_GRADIENT, TANH_GRADIENT])
def test_what_is_not_finite_stays_visible(kernel: ProductKernel, then: int):
    """Steps with such values are not taken, so they must not be lost."""
    x = torch.tensor([[torch.nan], [torch.inf], [-torch.inf]])
    out, beside = torch.empty(3, 1), torch.full((3, 1), 0.5)
    kernel.multiply(out, x, torch.ones(1, 1), then=then, beside=beside)
    torch.testing.assert_close(out, finished(x, beside, then), equal_nan=True)


def rewritten(function: Callable[..., Tensor], *arguments: Tensor) -> GraphModule:
    graph = make_fx(function, tracing_mode="fake")(*arguments)
    replace_products(graph, lambda shape, then: True)
    return graph


def operations(graph: GraphModule) -> list[str]:
    called = [node for node in graph.graph.nodes if node.op == "call_function"]
    return [str(node.target) for node in called if "product" in str(node.target)] + sorted(
        str(node.target) for node in called if "product" not in str(node.target)
    )


def test_bias_and_activation_become_one_with_a_product():
    x, weight, bias = torch.randn(4, 3), torch.randn(2, 3, 5), torch.randn(2, 1, 5)
    graph = rewritten(lambda x, w, c: (torch.bmm(x.expand(2, 4, 3), w) + c).tanh(), x, weight, bias)
    assert operations(graph)[0] == "tianji.product.default"
    assert not any(name in operations(graph) for name in ("aten.add.Tensor", "aten.tanh.default"))
    torch.testing.assert_close(graph(x, weight, bias), (x @ weight + bias).tanh())


def test_what_is_used_elsewhere_too_stays():
    def both(x: Tensor, w: Tensor) -> Tensor:
        product = x @ w
        return product.relu() + product

    arguments = torch.randn(4, 3), torch.randn(3, 4)
    graph = rewritten(both, *arguments)
    assert "aten.relu.default" in operations(graph)
    torch.testing.assert_close(graph(*arguments), both(*arguments))


@pytest.mark.parametrize("other", [torch.randn(4, 1), torch.randn(4).double(), torch.ones(4).int()])
def test_other_sums_of_products_are_no_biases(other: Tensor):
    arguments = torch.randn(4, 3), torch.randn(3, 4), other
    graph = rewritten(lambda x, w, c: x @ w + c, *arguments)
    assert "aten.add.Tensor" in operations(graph)


@pytest.mark.parametrize("sizes", [(5, 3, 1, 6), (1, 3, 1, 6)])
def test_sums_that_are_wider_than_a_product_are_no_biases(sizes: tuple[int, ...]):
    rows, depth, columns, wide = sizes
    arguments = torch.randn(rows, depth), torch.randn(depth, columns), torch.randn(wide)
    graph = rewritten(lambda x, w, c: (x @ w + c).relu(), *arguments)
    assert "aten.add.Tensor" in operations(graph)
    expected = (arguments[0] @ arguments[1] + arguments[2]).relu()
    torch.testing.assert_close(graph(*arguments), expected)


def test_a_product_is_computed_before_what_changes_its_factors():
    def changing(x: Tensor, w: Tensor, bias: Tensor) -> Tensor:
        h = x * 2
        product = h @ w
        h.add_(1.0)
        return (product + bias).relu() + h.sum()

    arguments = torch.randn(4, 3), torch.randn(3, 4), torch.randn(4)
    graph = rewritten(changing, *arguments)
    assert operations(graph)[0] == "tianji.product.default"
    torch.testing.assert_close(graph(*arguments), changing(*arguments))


def test_a_product_over_nothing_stays_pytorchs(kernel: ProductKernel):
    assert not kernel.is_faster(Shape.of(torch.empty(4, 0), torch.empty(0, 3)), NOTHING)


def test_libraries_are_compiled_anew_when_a_source_of_an_algorithm_changes():
    engine = Path(inspect.getfile(gradient)).parents[1]
    wanted = {
        path
        for folder in ("algorithms", "layers", "spaces")
        for path in (engine / folder).rglob("*.py")
    }
    assert wanted <= set(sources_of(blueprint_of("ppo"), "steps"))
    assert any(path.parent.name == "q_learning" for path in wanted)


def blueprint_of(name: str) -> Blueprint:
    if name == "ppo":
        return make_blueprint(make_experiment(env=EnvSpec(id="CartPole-v1", num_envs=4)))
    experiment = make_experiment(
        env=EnvSpec(id="Pendulum-v1", num_envs=4), staleness=StalenessSpec(mode="unbounded")
    )
    return make_blueprint(
        msgspec.structs.replace(
            experiment,
            algorithm={"name": name, "batch_size": 16, "updates_per_batch": 4},
            network=NetworkSpec(hidden_sizes=(16, 16), activation="relu"),
        )
    )


@pytest.mark.parametrize(("name", "num_products"), [("sac", 28), ("td3", 42), ("ppo", 10)])
def test_a_rewritten_step_computes_the_same(name: str, num_products: int):
    blueprint = blueprint_of(name)
    plain, other = (trace_steps(blueprint) for _ in range(2))
    replace_products(other.graph, lambda shape, then: True)
    names = operations(other.graph)
    assert names.count("tianji.product.default") == num_products
    assert "tianji_scan" in native_source(other.graph, rules_of_calls(1)), "loops know all of it"
    assert not {"aten.relu.default", "aten.threshold_backward.default"} & set(names)
    generator = torch.Generator().manual_seed(0)
    state = blueprint.algorithm.init(0)
    recorder = record(blueprint, state)
    assert recorder.step is not None
    num_changed = len(recorder.step.changed(state))
    arguments = [argument.clone() for argument in plain.arguments]
    for argument in arguments[num_changed + 1 :]:  # the samples
        if argument.is_floating_point():
            argument.uniform_(0.1, 1.0, generator=generator)
    before, copies = ([argument.clone() for argument in arguments] for _ in range(2))
    results = zip(plain.graph(*arguments), other.graph(*copies), strict=True)
    for one, two in [*results, *zip(arguments, copies, strict=True)]:
        torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-5)
    pairs = zip(arguments[:num_changed], before[:num_changed], strict=True)
    assert not all(torch.equal(one, two) for one, two in pairs), "something was learnt"


def with_seconds(
    kernel: ProductKernel, monkeypatch: pytest.MonkeyPatch, theirs: float, ours: float
) -> None:
    seconds = product_kernel._Seconds(theirs=theirs, ours=ours)
    monkeypatch.setattr(kernel, "_measure", lambda shape, then: seconds)


def test_the_faster_one_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    kernel = ProductKernel(tmp_path)
    monkeypatch.setattr(compiler, "ProductKernel", lambda *_, **__: kernel)
    with_seconds(kernel, monkeypatch, theirs=2e-6, ours=1e-6)
    graph = trace_steps(blueprint_of("ppo")).graph
    chosen, line = compiler._fastest_products(graph, tmp_path, 1)
    assert chosen is kernel
    assert operations(graph).count("tianji.product.default") == 10
    assert line.startswith("10 of 10 products by a kernel compiled for this processor, such as ")
    assert line.endswith(" in 1.0 us instead of 2.0")


def test_where_nothing_is_faster_products_stay_those_of_pytorch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    kernel = ProductKernel(tmp_path)
    monkeypatch.setattr(compiler, "ProductKernel", lambda *_, **__: kernel)
    with_seconds(kernel, monkeypatch, theirs=1e-6, ours=1e-6)
    graph = trace_steps(blueprint_of("ppo")).graph
    _, line = compiler._fastest_products(graph, tmp_path, 1)
    assert "tianji.product.default" not in operations(graph)
    assert line == "products by PyTorch, nothing else is faster here"


def test_where_results_must_be_equal_everywhere_nothing_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(product_kernel, "_least_seconds", None)
    graph = trace_steps(blueprint_of("ppo")).graph
    chosen, line = compiler._fastest_products(graph, tmp_path, 1, adapts=False)
    assert chosen is not None
    assert chosen.is_faster_in_all
    assert operations(graph).count("tianji.product.default") == 10
    assert line.endswith("a time that was not measured")


def test_without_the_kernel_products_stay_those_of_pytorch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(product_kernel, "FLAGS_OF_PRODUCT", ("--no-such-flag",))
    graph = trace_steps(blueprint_of("ppo")).graph
    chosen, line = compiler._fastest_products(graph, tmp_path, 1)
    assert chosen is None
    assert line.startswith("products by PyTorch: ")
    assert "tianji.product.default" not in operations(graph)


def test_measurements_are_of_both(kernel: ProductKernel):
    a, b = torch.randn(8, 4), torch.randn(4, 16)
    seconds = kernel._measure(product_kernel.Shape.of(a, b), RELU)
    assert 0.0 < seconds.ours < 1e-3
    assert 0.0 < seconds.theirs < 1e-3


def batch_of(blueprint: Blueprint) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    batch = SampleStaging(blueprint.samples).tensors
    for name in ("observation", "next_observation", "reward", "discount", "action"):
        batch[name].uniform_(-1.0, 1.0, generator=generator)
    return batch


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the compiler, which is PyTorch's own
@pytest.mark.parametrize("name", ["sac", "td3"])
def test_compiled_it_trains_as_in_eager_mode(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(product_kernel._Seconds, "is_less", True)
    blueprint = blueprint_of(name)
    write_library(blueprint, "steps", tmp_path / "library.so", tmp_path)
    eager, compiled = blueprint.algorithm.init(3), blueprint.algorithm.init(3)
    compiled.steps = CompiledSteps(Library(tmp_path / "library.so"))
    batch = batch_of(blueprint)
    for _ in range(5):
        one, other = (blueprint.algorithm.update(state, batch) for state in (eager, compiled))
        assert other.metrics == pytest.approx(one.metrics, abs=1e-5)
    torch.testing.assert_close(compiled.weights.vector, eager.weights.vector, atol=1e-5, rtol=0)
