"""Whether calls fit a compiled function: one that none fits is of no use, and says so once."""

from __future__ import annotations

from engine.compilation.library import Signature


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
        self.is_used = False
        self.misfit = ""

    def takes(self, found: Signature) -> bool:
        """Whether the function can be called with arguments of this signature."""
        if found == self._wanted:
            self.is_used = True
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
