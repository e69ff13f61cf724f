"""The compiler: a process that turns part of an experiment into a shared library.

`engine.compilation.compiler KIND LIBRARY WORKSPACE [DIRECTORY...] < order.json`, by
`engine.host.tether`

`steps` runs one update on an empty batch and records what the algorithm asks `state.steps` to do;
`act` is an actor's step. Either is traced as one computation with fixed shapes, from which
`engine.compilation.native` makes a library, or PyTorch's ahead-of-time compiler. It runs beside the
training that uses the result and never inside it: tracing and compiling hold Python's lock.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from functools import partial
from pathlib import Path
from types import FrameType
from typing import cast

import msgspec
import psutil
import torch
from torch import Tensor
from torch.fx import GraphModule

from engine.algorithms.returns import accumulated
from engine.blueprint import Blueprint, make_blueprint
from engine.compilation.library import Kind, function_of, num_threads_of, put_library
from engine.compilation.native.build import build, native_source
from engine.compilation.native.places import UnsupportedError
from engine.compilation.native_calls import rules_of_calls
from engine.compilation.product_kernel import ProductKernel, compile_beside
from engine.compilation.products import replace_products
from engine.compilation.traces import TRACE
from engine.compilation.tracing import traced_by_pytorch
from engine.graph.cut import Cut
from engine.host.end_signals import END_SIGNAL
from engine.host.host_code import ACCUMULATE, SCAN, compile_object, found_by_linkers
from engine.host.process import name_process
from engine.search_path import look_in
from engine.spec import Experiment

NICENESS: Mapping[Kind, int] = {"steps": 0, "collect": 0, "prepare": 5, "act": 5}
"""Loops are compiled in few seconds. A learner gains more by them than it loses meanwhile: PPO on
CartPole on two cores had compiled steps after 4 s, with 10 after 13 s."""
NICENESS_OF_PYTORCH = 10
"""PyTorch's compiler needs the processor for much longer, and training has priority. With 17 PPO on
CartPole on two cores had no compiled steps after a minute; with 10 after 43 s."""


class CompileOrder(msgspec.Struct, frozen=True, kw_only=True):
    """The input of a compiler that is no fork: the run, and the learner or actor that its function
    is for."""

    experiment: Experiment
    cut: Cut
    group: int
    has_action_mask: bool


def write_library(
    blueprint: Blueprint,
    kind: Kind,
    library: Path,
    workspace: Path,
    give_way: Callable[[], object] = lambda: None,
) -> None:
    """Compiles in `workspace`, then moves library and signature to their place atomically.

    `give_way` is called before PyTorch's compiler is, which takes long.

    Raises:
        RuntimeError, AssertionError: The function to compile is not pure.
    """
    made = workspace / "made.so"
    compile_beside(workspace)
    traced = TRACE[kind](blueprint)
    num_threads = num_threads_of(blueprint, kind)
    products = compile_graph(
        traced.graph,
        traced.arguments,
        made,
        workspace,
        num_threads,
        adapts=not blueprint.experiment.staleness.is_fixed,
        give_way=give_way,
    )
    call_once(made, traced.arguments)
    put_library(made, traced.signature, library, products)


def call_once(made: Path, arguments: Sequence[Tensor]) -> None:
    """Calls a library with copies of the arguments that it was traced with.

    Raises:
        RuntimeError, OSError: It cannot be loaded or called.
    """
    copies = [
        torch.empty_strided(each.shape, each.stride(), dtype=each.dtype) for each in arguments
    ]
    for copy, each in zip(copies, arguments, strict=True):
        copy.copy_(each)
    with suppress(IndexError):  # what it was traced with may be no indices
        function_of(made).call(copies)


def compile_graph(
    graph: GraphModule,
    arguments: tuple[Tensor, ...],
    made: Path,
    workspace: Path,
    num_threads: int = 1,
    *,
    adapts: bool = True,
    give_way: Callable[[], object] = lambda: None,
) -> str:
    """Compiles a graph that writes into its arguments to the library `made`.

    Args:
        graph, arguments: As they were traced.
        made: The library.
        workspace: For what is needed on the way.
        num_threads: So many may share a product.
        adapts: Whether measured times and failures of the C++ compiler here decide what computes
            it. Otherwise only the graph does, and a failure is one.
        give_way: Called before PyTorch's compiler is.

    Returns:
        One line about its products.

    Raises:
        RuntimeError: A library cannot compute it.
        OSError, subprocess.CalledProcessError: The C++ compiler failed, and nothing else may do.
    """
    faster = GraphModule(graph, deepcopy(graph.graph))
    kernel, products = _fastest_products(faster, workspace, num_threads, adapts=adapts)
    if kernel is None:
        give_way()
        compile_by_pytorch(graph, arguments, made, workspace)
        return products
    try:
        return _compile_loops(faster, made, workspace, kernel)
    except (UnsupportedError, subprocess.CalledProcessError) as error:
        if not (adapts or isinstance(error, UnsupportedError)):
            raise
        is_new = hasattr(torch._inductor.config.aot_inductor, "custom_op_libs")
        if not is_new:
            kernel, products = None, "products by PyTorch, which is too old for others"
        chosen = faster if is_new else graph
        give_way()
        compile_by_pytorch(chosen, arguments, made, workspace, kernel)
        return "; ".join(filter(None, (f"by PyTorch's compiler: {error}", products)))


def _compile_loops(graph: GraphModule, made: Path, workspace: Path, kernel: ProductKernel) -> str:
    """Compiles loops and products as C++ without PyTorch, which takes a tenth of the time that
    PyTorch's compiler takes. All products are the kernel's.

    Returns:
        One line about its products.

    Raises:
        UnsupportedError: It has other operations, or products that PyTorch computes faster.
        subprocess.CalledProcessError: The C++ compiler knows no such code.
    """
    if not kernel.is_faster_in_all:
        raise UnsupportedError("its products are faster")
    graph = GraphModule(graph, deepcopy(graph.graph))
    replace_products(graph, kernel.can)
    source = _source_of(graph, kernel.num_threads)
    objects = [kernel.object]
    if _accumulates(graph):
        objects.append(compile_object("accumulate.cpp", workspace, ACCUMULATE))
    build(source, kernel.compiler, objects, made)
    return kernel.described(computes_all=True)


def _source_of(graph: GraphModule, num_threads: int) -> str:
    """The C++ of its loops. Whatever fails here is unknown to them: PyTorch's compiler may know
    it, and a library must not be missing for it."""
    try:
        return native_source(graph, rules_of_calls(num_threads), num_threads)
    except UnsupportedError:
        raise
    except Exception as error:
        raise UnsupportedError(f"{type(error).__name__} in loops: {error}") from error


def compile_by_pytorch(
    graph: GraphModule,
    arguments: tuple[Tensor, ...],
    made: Path,
    workspace: Path,
    kernel: ProductKernel | None = None,
) -> None:
    """Compiles any graph by PyTorch's ahead-of-time compiler, with products by the kernel."""
    graph = traced_by_pytorch(graph, arguments)  # with values as that compiler expects them
    torch._inductor.config.compile_threads = 1
    options = {**_OPTIONS, "aot_inductor.output_path": str(made)}
    if hasattr(torch._inductor.config.aot_inductor, "custom_op_libs"):
        options |= _own_code(graph, workspace, kernel)
    else:
        graph = without_own_operations(graph, arguments)
    with torch.no_grad(), found_by_linkers(workspace):
        torch._inductor.aot_compile(graph, arguments, options=options)
    # PyTorch writes such a file of the operations that a library asks it for.
    if made.with_suffix(".json").exists() or any(made.parent.glob("*.wrapper.json")):
        raise RuntimeError("it calls operations that a library cannot call")


def without_own_operations(graph: GraphModule, arguments: tuple[Tensor, ...]) -> GraphModule:
    """The same for a PyTorch that cannot call this folder's C++."""
    from torch.fx.experimental.proxy_tensor import make_fx

    parts = {torch.ops.tianji.accumulate.default: accumulated}
    made: GraphModule = make_fx(graph, decomposition_table=parts, tracing_mode="fake")(*arguments)
    return made


def _own_code(
    graph: GraphModule, workspace: Path, kernel: ProductKernel | None
) -> dict[str, object]:
    """Options that link this folder's C++ into a library."""
    objects = [compile_object("scan.cpp", workspace, SCAN)]
    accumulates = _accumulates(graph)
    options: dict[str, object] = {}
    if accumulates or (kernel is not None and kernel.is_used):
        from engine.compilation import product_lowering

        options["aot_inductor.custom_ops_to_c_shims"] = product_lowering.DECLARATIONS
        if accumulates:
            product_lowering.lower_accumulate()
            objects.append(compile_object("accumulate.cpp", workspace, ACCUMULATE))
        if kernel is not None and kernel.is_used:
            product_lowering.lower_products(kernel.num_threads)
            objects.append(kernel.object)
    # Linkers take a name after a colon as it is, and an object as a whole.
    options["aot_inductor.custom_op_libs"] = [f":{each.name}" for each in objects]
    return options


def _accumulates(graph: GraphModule) -> bool:
    """Whether it calls `accumulate.cpp`."""
    accumulate = torch.ops.tianji.accumulate.default
    return any(node.target is accumulate for node in graph.graph.nodes)


def _fastest_products(
    graph: GraphModule, workspace: Path, num_threads: int, *, adapts: bool = True
) -> tuple[ProductKernel | None, str]:
    """Replaces products that the kernel computes faster, by one thread of each.

    Returns:
        The kernel, unless it cannot be compiled, and one line about the choice.

    Raises:
        OSError, subprocess.CalledProcessError: It cannot be compiled, and PyTorch may not replace
            it.
    """
    try:
        kernel = ProductKernel(workspace, num_threads)
    except (OSError, subprocess.CalledProcessError) as error:
        if not adapts:
            raise
        return None, f"products by PyTorch: {error}"
    kernel.measures = adapts
    replace_products(graph, kernel.is_faster)
    return kernel, kernel.described()


_OPTIONS: Mapping[str, object] = {
    # Whether the processor has them is asked in any case; this would compile PyTorch's vector
    # headers four times to see that they can be.
    "cpp.vec_isa_ok": True,
    # Precompiling headers costs more than one library gains from it.
    "aot_inductor.precompile_headers": False,
    "cpp_cache_precompile_headers": False,
    "aot_inductor.enable_line_tables": False,
}


def settle(kind: Kind, workspace: Path) -> None:
    """How this process is ended, its name, and its share of the processor."""
    for number in (END_SIGNAL, signal.SIGTERM):  # of its role; of a manager, or of all its group
        signal.signal(number, partial(_end, workspace))
    name_process("tj-compiler")
    os.nice(NICENESS[kind])
    torch.set_num_threads(1)
    warnings.resetwarnings()  # of what was forked: as errors, PyTorch's own would end a compiler


def compile_to(blueprint: Blueprint, kind: Kind, library: Path, workspace: Path) -> None:
    """Makes a library in a process of its own; see `write_library`."""
    tempfile.gettempdir()  # is remembered, and stays: the cache can lie below it
    os.environ["TMPDIR"] = str(workspace)  # of C++ compilers, which leave their files if killed
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(workspace)
    write_library(
        blueprint,
        kind,
        library,
        workspace,
        give_way=lambda: os.nice(NICENESS_OF_PYTORCH - NICENESS[kind]),
    )


def main() -> None:
    """Compiles what standard input describes; see the module's first lines."""
    kind, library, workspace, *directories = sys.argv[1:]
    settle(cast(Kind, kind), Path(workspace))
    look_in(directories)
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=CompileOrder)
    blueprint = make_blueprint(
        order.experiment, order.cut, has_action_mask=order.has_action_mask
    ).of_group(order.group)
    compile_to(blueprint, cast(Kind, kind), Path(library), Path(workspace))


def _end(workspace: Path, number: int, _frame: FrameType | None) -> None:
    """Also ends the C++ compiler, which would run on for seconds, and removes all by-products."""
    for child in psutil.Process().children(recursive=True):
        child.kill()
    shutil.rmtree(workspace, ignore_errors=True)
    os._exit(128 + number)


if __name__ == "__main__":
    main()
