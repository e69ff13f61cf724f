"""A library of a graph, without PyTorch's compiler."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch.fx import GraphModule

from engine.compilation.native.grouping import Step, grouped, stored
from engine.compilation.native.in_place import written_in_place
from engine.compilation.native.lowering import Lowering, Rule
from engine.compilation.native.memory import laid_out, without_copies
from engine.compilation.native.rules import RULES
from engine.compilation.native.source import source_of

_FLAGS = ("-std=c++17", "-O3", "-march=native", "-fPIC", "-fopenmp-simd", "-pthread", "-shared")
_NUMBERS = ("-fwrapv", "-fno-math-errno", "-fno-trapping-math")
"""Integers overflow as PyTorch's do; for vectors, error numbers and signals are given up. Not the
sign of zeros: without it, GCC also takes NaN times 0 for 0."""


def native_source(graph: GraphModule, more: Mapping[str, Rule], num_threads: int = 1) -> str:
    """The C++ file of a graph that writes into its arguments.

    Args:
        graph: Its nodes know their values (`meta["val"]`).
        more: What lowers operations that are not known here, by their name.
        num_threads: So many may share a loop. With more than one, `product.cpp` has to be linked.

    Raises:
        UnsupportedError: Loops cannot compute it.
    """
    steps = lowered(graph, more)
    needed = stored(steps)
    return source_of(steps, needed, laid_out(steps, needed), num_threads)


def lowered(graph: GraphModule, more: Mapping[str, Rule]) -> list[Step]:
    """The steps of a graph; see `native_source`."""
    operations = Lowering(graph, {**RULES, **more}).builder.operations
    return grouped(written_in_place(without_copies(operations)))


def build(source: str, compiler: str, objects: Sequence[Path], made: Path) -> None:
    """Compiles a file, links it with these objects, and writes the library `made`.

    Raises:
        OSError, subprocess.CalledProcessError: It cannot be compiled.
    """
    written = made.with_suffix(".cpp")
    written.write_text(source)
    command = [compiler, *_FLAGS, *_NUMBERS, str(written), *map(str, objects), "-o", str(made)]
    subprocess.run(command, check=True, capture_output=True)
