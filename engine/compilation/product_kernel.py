"""The kernel `product.cpp`: compiled for the host, measured on it, and linked into libraries.

PyTorch's BLAS library is not equally good everywhere: on AMD processors MKL uses half of AVX-512,
and of small products most of its time is not spent multiplying. So each product of a function is
measured on the host that compiles it, by that library and by the kernel; the faster one is used.
Where equal seeds must give equal weights, the kernel computes all products that it can.
"""

from __future__ import annotations

import ctypes
import math
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor

from engine.compilation.products import Shape, finished
from engine.host.cpp_compiler import cpp_compiler
from engine.host.host_code import FLAGS_OF_PRODUCT, PRODUCT, compile_object
from engine.wording import plural

_ROUNDS = 7
_ROUND_S = 2e-4
_WORTH_LOOPS = 1.1
"""So much slower products are made up for by loops without PyTorch around them."""
_SAVED_S = 3e-6
"""The least that those save in a call."""
_Repeated: TypeAlias = Callable[[int], None]
"""Does something so often."""


class ProductKernel:
    """The kernel, compiled for this host.

    Args:
        directory: Where it is compiled, as a library for linkers and for this process.
        num_threads: So many may share a product.

    Attributes:
        object: To be linked into libraries.
        compiler: Of C++.
        num_threads: See above.
        measures: Whether time decides what it computes; otherwise it computes all that it can.

    Raises:
        OSError, subprocess.CalledProcessError: It cannot be compiled.
    """

    def __init__(self, directory: Path, num_threads: int = 1) -> None:
        self.num_threads = num_threads
        self.measures = True
        self.object = compile_object("product.cpp", directory, PRODUCT, FLAGS_OF_PRODUCT)
        shared = directory / f"{PRODUCT}.so"
        compiler = cpp_compiler()
        assert compiler is not None
        self.compiler = compiler
        command = [compiler, *FLAGS_OF_PRODUCT, "-shared", str(self.object), "-o", str(shared)]
        subprocess.run(command, check=True, capture_output=True)
        self._multiply = ctypes.CDLL(str(shared)).tianji_product_repeated
        self._multiply.argtypes = [ctypes.c_int64, *[ctypes.c_void_p] * 6]
        self._measured: dict[tuple[Shape, int], _Seconds] = {}
        self._asked: list[tuple[Shape, int]] = []

    def is_faster(self, shape: Shape, then: int) -> bool:
        """Whether it needs less time than PyTorch for a product and what happens to its entries
        then, by the best of some rounds."""
        if not self.can(shape, then):
            return False
        key = shape, then
        self._asked.append(key)
        if key not in self._measured:
            self._measured[key] = self._measure(shape, then) if self.measures else _CHOSEN
        return self._measured[key].is_less

    def can(self, shape: Shape, then: int) -> bool:
        """Whether it can compute a product."""
        return 1 in shape.of_b[1:] and shape.num_multiplications > 0

    @property
    def is_faster_in_all(self) -> bool:
        """Whether it needs less time than PyTorch, or little more, for all products together that
        it was asked for."""
        ours, theirs = (
            sum(getattr(self._measured[key], name) for key in self._asked)
            for name in ("ours", "theirs")
        )
        return bool(ours <= theirs * _WORTH_LOOPS + _SAVED_S)

    @property
    def is_used(self) -> bool:
        """Whether it computes any of the products that it was asked for."""
        return any(measured.is_less for measured in self._measured.values())

    def described(self, computes_all: bool = False) -> str:
        """One line: which products it computes, of those that it was asked for, how fast, and how
        many threads share the large ones."""
        chosen = {
            key: self._asked.count(key)
            for key in self._asked
            if computes_all or self._measured[key].is_less
        }
        if not chosen:
            return "products by PyTorch, nothing else is faster here" if self._asked else ""
        largest = max(chosen, key=lambda key: key[0].num_multiplications)
        return (
            f"{sum(chosen.values())} of {len(self._asked)} products by a kernel compiled for this"
            f" processor, such as {largest[0]} in {self._measured[largest]}"
            + (
                f"; {plural(self.num_threads, 'thread')} share large ones"
                if self.num_threads > 1
                else ""
            )
        )

    def multiply(
        self,
        out: Tensor,
        a: Tensor,
        b: Tensor,
        *,
        then: int,
        bias: Tensor | None = None,
        beside: Tensor | None = None,
        count: int = 1,
    ) -> None:
        """Writes then(a b + bias, beside) into `out`, so often.

        Args:
            out: [M, N], contiguous.
            a, b: float32 [M, K] and [K, N], or with one more axis before; rows or columns of b are
                contiguous.
            then: What happens to an entry.
            bias: [N].
            beside: Like `out`; needed for gradients.
            count: How often.
        """
        s = Shape.of(a, b)
        numbers = [
            s.batch,
            s.rows,
            s.columns,
            s.depth,
            *s.of_a,
            *s.of_b,
            0,
            then,
            self.num_threads,
        ]
        pointers = [None if each is None else each.data_ptr() for each in (out, a, b, bias, beside)]
        self._multiply(count, *pointers, (ctypes.c_int64 * len(numbers))(*numbers))

    def _measure(self, shape: Shape, then: int) -> _Seconds:
        a = _random((shape.batch, shape.rows, shape.depth), shape.of_a)
        b = _random((shape.batch, shape.depth, shape.columns), shape.of_b)
        if shape.batch == 1:
            a, b = a[0], b[0]
        out = torch.empty(*a.shape[:-1], shape.columns)
        one, beside = torch.zeros(1), torch.zeros_like(out)

        def multiply(count: int) -> None:
            for _ in range(count):
                torch.matmul(a, b, out=out)

        def follow(count: int) -> None:
            for _ in range(count):
                finished(out, beside, then)

        def call(count: int) -> None:
            for _ in range(count):
                finished(one, one, then)

        def ours(count: int) -> None:
            self.multiply(out, a, b, then=then, beside=beside, count=count)

        product, following, calling, mine = _least_seconds(multiply, follow, call, ours)
        return _Seconds(theirs=product + max(0.0, following - calling), ours=mine)


def compile_beside(directory: Path) -> None:
    """Begins to compile the kernel, in a thread, so that it is there when it is needed.

    If that fails, `ProductKernel` says so.
    """

    def compile_it() -> None:
        with suppress(OSError, subprocess.CalledProcessError):
            compile_object("product.cpp", directory, PRODUCT, FLAGS_OF_PRODUCT)

    threading.Thread(target=compile_it, daemon=True).start()


@dataclass(frozen=True)
class _Seconds:
    """Of one product, by PyTorch and by the kernel."""

    theirs: float
    ours: float

    @property
    def is_less(self) -> bool:
        return self.ours < self.theirs

    def __str__(self) -> str:
        if self is _CHOSEN:
            return "a time that was not measured"
        return f"{self.ours * 1e6:.1f} us instead of {self.theirs * 1e6:.1f}"


_CHOSEN = _Seconds(theirs=math.inf, ours=0.0)
"""Of a product that the kernel computes in any case."""


def _random(size: tuple[int, int, int], strides: tuple[int, int, int]) -> Tensor:
    """A tensor of this layout."""
    last = sum((n - 1) * stride for n, stride in zip(size, strides, strict=True))
    return torch.randn(last + 1).as_strided(size, strides)


def _least_seconds(*functions: _Repeated) -> list[float]:
    """Of one call of each, measured in turn."""
    counts = []
    for each in functions:
        each(1)  # finds its memory
        counts.append(max(1, round(_ROUND_S / max(_seconds(each, 2) / 2, 1e-9))))
    rounds = [
        [_seconds(each, count) / count for each, count in zip(functions, counts, strict=True)]
        for _ in range(_ROUNDS)
    ]
    return [min(times) for times in zip(*rounds, strict=True)]


def _seconds(repeated: _Repeated, count: int) -> float:
    started_at = time.perf_counter()
    repeated(count)
    return time.perf_counter() - started_at
