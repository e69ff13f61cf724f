"""What a library computes, without a compiler."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from engine.compilation.tracing import Traced


class TracedLibrary:
    """A `Library` that runs the graph which would be compiled.

    Attributes:
        num_calls: How often it was called.
    """

    def __init__(self, traced: Traced) -> None:
        self._graph, self.signature, self.num_calls = traced.graph, traced.signature, 0

    def scan(self, fixed: Sequence[Tensor], rows: Sequence[Tensor]) -> None:
        """See `Library`."""
        self.num_calls += 1
        for row in zip(*(each.unbind() for each in rows), strict=True):
            self._graph(*fixed, *row)
