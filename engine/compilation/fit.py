"""Whether calls fit a compiled function: one that none fits is of no use, and says so once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import torch
from torch import Tensor

from engine.compilation.library import Signature, describe

Form: TypeAlias = tuple[tuple[str, torch.Size, tuple[int, ...], torch.dtype], ...]
"""Names, shapes, strides and types of arguments, as PyTorch has them."""


class Fit:
    """Compares calls with the signature of a compiled function.

    Args:
        wanted: What it was compiled for.

    Attributes:
        is_used: Whether a call did fit.
        misfit: The arguments in which the last call differed that did not fit.
    """

    def __init__(self, wanted: Signature) -> None:
        self._wanted = wanted
        self._fitting: Form = ()
        """Of the last call that fitted; comparing with it costs less than a signature."""
        self.is_used = False
        self.misfit = ""

    def takes(self, arguments: Mapping[str, Tensor]) -> bool:
        """Whether the function can be called with these arguments, by name."""
        form = tuple((name, t.shape, t.stride(), t.dtype) for name, t in arguments.items())
        if form == self._fitting:
            return True
        found = describe(arguments)
        if found == self._wanted:
            self.is_used, self._fitting = True, form
            return True
        if not self.is_used:
            names = sorted(found.keys() | self._wanted.keys())
            differ = [name for name in names if found.get(name) != self._wanted.get(name)]
            self.misfit = ", ".join(differ)
        return False


class Fits:
    """Those of a process whose first calls are still to come, by the name of their function."""

    def __init__(self) -> None:
        self._open: dict[str, Fit] = {}

    def watch(self, name: str, fit: Fit) -> None:
        """Waits for the first calls of a function."""
        self._open[name] = fit

    def tell(self) -> list[str]:
        """Logs, after an update, which functions it called in vain.

        Returns:
            These lines.
        """
        called = [name for name, fit in self._open.items() if fit.is_used or fit.misfit]
        fits = [(name, self._open.pop(name)) for name in called]
        lines = [
            f"{name}: the compiled function is not used, since it does not fit: {fit.misfit}"
            for name, fit in fits
            if not fit.is_used
        ]
        for line in lines:
            print(line, flush=True)
        return lines
