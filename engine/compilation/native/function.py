"""Calls a function that was compiled without PyTorch."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor


class NativeFunction:
    """A function of pointers, from its library.

    Args:
        path: Of its library.

    Raises:
        AttributeError: It is a library of another kind.
        OSError: It cannot be loaded.
    """

    def __init__(self, path: Path) -> None:
        self._scan = ctypes.CDLL(str(path)).tianji_scan
        self._scan.argtypes = [*[ctypes.c_int64] * 2, *[ctypes.c_void_p] * 2]

    def call(self, arguments: Sequence[Tensor]) -> None:
        """Calls it once; see `scan`."""
        num = len(arguments)
        pointers = (ctypes.c_void_p * num)(*[each.data_ptr() for each in arguments])
        self._check(self._scan(1, 0, pointers, None))

    def scan(self, fixed: Sequence[Tensor], rows: Sequence[Tensor]) -> None:
        """Calls it for each of some rows; see `engine.compilation.scanning`.

        Raises:
            IndexError: An index among the arguments is out of bounds.
        """
        num, first = len(fixed) + len(rows), [*fixed, *rows]
        pointers = (ctypes.c_void_p * num)(*[each.data_ptr() for each in first])
        strides = [each.stride(0) * each.element_size() for each in rows]
        moves = (ctypes.c_int64 * num)(*[0] * len(fixed), *strides)
        self._check(self._scan(len(rows[0]), num, pointers, moves))

    def _check(self, error: int) -> None:
        if error:
            raise IndexError("a compiled function was given an index that is out of bounds")
