"""Calls a compiled function many times in one call, by `scan.cpp`, which is in its library.

    for t in range(T): function(*fixed, *(row[t] for row in rows))

The function writes into its arguments, so a step can go on where the one before has ended: what
is carried is in `fixed`, and what is kept of each step in `rows`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor


class Scanner:
    """A compiled function that is called from C++.

    Args:
        path: Of its library.

    Raises:
        AttributeError: It was linked without `scan.cpp`.
        OSError, RuntimeError: It cannot be loaded.
    """

    def __init__(self, path: Path) -> None:
        self._library = library = ctypes.CDLL(str(path))
        self._function = ctypes.c_void_p()
        self._scan = library.tianji_scan_opened
        self._scan.argtypes = [ctypes.c_void_p, *[ctypes.c_int64] * 2, *[ctypes.c_void_p] * 3]
        self._dtypes: dict[torch.dtype, int] = {}
        if library.tianji_open(ctypes.byref(self._function)):
            raise RuntimeError("the compiled function cannot be opened")

    def scan(self, fixed: Sequence[Tensor], rows: Sequence[Tensor]) -> None:
        """See the module's first lines.

        Args:
            fixed: The first arguments, the same in each call.
            rows: The others, each [T, ...]: row t is the argument of call t. At least one.

        Raises:
            RuntimeError: A call failed.
        """
        strides = [0] * len(fixed) + [each.stride(0) * each.element_size() for each in rows]
        first = [*fixed, *(each[0] for each in rows)]
        described: list[int] = []
        for each in first:
            described += [self._number_of(each.dtype), each.dim(), *each.shape, *each.stride()]
        count, num = len(rows[0]), len(first)
        error = self._scan(
            self._function,
            count,
            num,
            (ctypes.c_void_p * num)(*(each.data_ptr() for each in first)),
            (ctypes.c_int64 * num)(*strides),
            (ctypes.c_int64 * len(described))(*described),
        )
        if error:
            raise RuntimeError("a compiled function has failed; its reason is in the log")

    def _number_of(self, dtype: torch.dtype) -> int:
        """PyTorch's number of a dtype."""
        if dtype not in self._dtypes:
            name = str(dtype).removeprefix("torch.")
            self._dtypes[dtype] = getattr(self._library, f"aoti_torch_dtype_{name}")()
        return self._dtypes[dtype]
