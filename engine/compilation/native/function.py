"""Calls a function that was compiled without PyTorch."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from torch import Tensor

Pointers: TypeAlias = "ctypes.Array[ctypes.c_void_p]"
Moves: TypeAlias = "ctypes.Array[ctypes.c_int64]"


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

    def calls(self, fixed: Sequence[Tensor], rows: Sequence[Tensor]) -> Callable[[], None]:
        """What calls it with the first of some rows, then with the next; see `scan`.

        Called more often than there are rows, it raises IndexError.
        """
        return _Calls(self, fixed, rows)

    def scan(self, fixed: Sequence[Tensor], rows: Sequence[Tensor]) -> None:
        """Calls it for each of some rows; see `engine.compilation.scanning`.

        Raises:
            IndexError: An index among the arguments is out of bounds.
        """
        self.advance(len(rows[0]), *self.arguments(fixed, rows))

    def advance(self, count: int, pointers: Pointers, moves: Moves) -> None:
        """Calls it so often, and moves the pointers on; see `scan`."""
        self._check(self._scan(count, len(moves), pointers, moves))

    def arguments(self, fixed: Sequence[Tensor], rows: Sequence[Tensor]) -> tuple[Pointers, Moves]:
        """Where all arguments begin, and how many bytes each moves on after a call."""
        num, first = len(fixed) + len(rows), [*fixed, *rows]
        pointers = (ctypes.c_void_p * num)(*[each.data_ptr() for each in first])
        strides = [each.stride(0) * each.element_size() for each in rows]
        return pointers, (ctypes.c_int64 * num)(*[0] * len(fixed), *strides)

    def _check(self, error: int) -> None:
        if error:
            raise IndexError("a compiled function was given an index that is out of bounds")


class _Calls:
    """Single calls of a function, one row after the other. Its pointers are made once, so a call
    costs Python next to nothing.

    Args:
        function, fixed, rows: See `NativeFunction.calls`.
    """

    def __init__(
        self, function: NativeFunction, fixed: Sequence[Tensor], rows: Sequence[Tensor]
    ) -> None:
        self._advance, self._num_left = function.advance, len(rows[0])
        self._arguments = function.arguments(fixed, rows)
        self._memory = (fixed, rows)
        """It must not be freed before the last call."""

    def __call__(self) -> None:
        if not self._num_left:
            raise IndexError("a compiled function was called for more rows than there are")
        self._num_left -= 1
        self._advance(1, *self._arguments)
