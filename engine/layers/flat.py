"""All parameters of a network as one flat tensor, and all gradients as another.

The network's parameters become views, so an optimiser step, a norm or a copy to the wire is one
operation on one tensor instead of one for each layer.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn


class StepLog:
    """Counts optimiser steps, and those skipped because a value was not finite.

    Attributes:
        metrics: Of the steps that `count` has counted last, for the trace: `gradient_norm`, the
            mean norm before clipping of those taken, and `learning_rate`, of the last of them.
    """

    def __init__(self) -> None:
        self.metrics: dict[str, float] = {}
        self._norms: list[Tensor] = []
        self._wanted = self._taken = 0
        self._sum = self._learning_rate = 0.0

    def note(self, norm: Tensor, learning_rate: float) -> None:
        """Counts one step, or several; does not synchronize.

        Args:
            norm: Of the gradient of each before clipping, float32, a scalar or [K], that may not be
                computed yet; above zero, or the step was skipped if it is zero or not finite.
            learning_rate: Of these steps.
        """
        self._norms.append(norm)
        self._learning_rate = learning_rate
        if len(self._norms) == MAX_NOTED:
            self._add_up()

    def count(self) -> tuple[int, int]:
        """Steps requested, and steps skipped, since the last call."""
        if self._norms:
            self._add_up()
        counts = self._wanted, self._wanted - self._taken
        self.metrics = {}
        if self._taken:
            self.metrics["gradient_norm"] = self._sum / self._taken
            self.metrics["learning_rate"] = self._learning_rate
        self._wanted = self._taken = 0
        self._sum = 0.0
        return counts

    def _add_up(self) -> None:
        noted = self._norms
        norms = torch.cat([norm.reshape(-1) for norm in noted]).tolist()
        taken = [norm for norm in norms if 0 < norm < math.inf]
        self._wanted += len(norms)
        self._taken += len(taken)
        self._sum += sum(taken)
        self._norms = []


MAX_NOTED = 1024
"""Sum up beyond this many notes, so that memory stays bounded if they are never counted."""
LEAST_NORM = 1e-30
"""Added to the norm of a step that is taken, since a gradient can be zero."""


@dataclass
class FlatParameters:
    """Flat views of a network.

    Attributes:
        vector: All parameters, float32 [P]; its `grad` is all gradients.
        digest: 64 bits that differ between parameter layouts.
        complete: Adds the shares of other learners to a gradient [P], in place.
        steps: Counts of optimiser steps, and the norms of their gradients.
    """

    vector: nn.Parameter
    digest: int
    complete: Callable[[Tensor], None] | None = None
    steps: StepLog = field(default_factory=StepLog, repr=False)
    _is_complete: bool = False

    @property
    def num_bytes(self) -> int:
        return self.vector.numel() * self.vector.element_size()

    @property
    def gradient(self) -> Tensor:
        assert self.vector.grad is not None
        return self.vector.grad

    def complete_gradient(self) -> Tensor:
        """The gradient, float32 [P], with the shares of all learners; call this before its use.

        It is completed once per optimiser step, which ends with `spend_gradient`.
        """
        if self.complete is not None and not self._is_complete:
            self.complete(self.gradient)
            self._is_complete = True
        return self.gradient

    def spend_gradient(self) -> None:
        """Marks the gradient as used; the next one must be completed again."""
        self._is_complete = False

    def load(self, source: Tensor) -> None:
        """Overwrites all parameters with `source` [P]."""
        with torch.no_grad():
            self.vector.copy_(source)


def spans_of(network: nn.Module) -> dict[str, slice]:
    """The place of each parameter in the flat ones, by name."""
    spans, position = {}, 0
    for name, parameter in network.named_parameters():
        spans[name] = slice(position, position + parameter.numel())
        position += parameter.numel()
    return spans


def joined(spans: Sequence[slice]) -> slice:
    """The place of parameters that follow each other.

    Raises:
        ValueError: They do not.
    """
    whole = slice(spans[0].start, spans[-1].stop)
    if sum(span.stop - span.start for span in spans) != whole.stop - whole.start:
        raise ValueError("the parameters that a part moves do not follow each other")
    return whole


def span_of(network: nn.Module, module: str) -> slice:
    """The place of all parameters of a module, by its name."""
    spans = spans_of(network)
    return joined([span for name, span in spans.items() if name.startswith(f"{module}.")])


def flatten(network: nn.Module) -> FlatParameters:
    """Moves the parameters of `network` into one tensor, keeping their values.

    Raises:
        ValueError: A parameter is not float32.
    """
    parameters = dict(network.named_parameters())
    if wrong := [name for name, p in parameters.items() if p.dtype != torch.float32]:
        raise ValueError(f"parameters must be float32: {wrong}")
    vector = nn.Parameter(torch.cat([p.detach().reshape(-1) for p in parameters.values()]))
    vector.grad = torch.zeros_like(vector)
    for name, span in spans_of(network).items():
        parameter = parameters[name]
        parameter.data = vector.data[span].view(parameter.shape)
        parameter.grad = vector.grad[span].view(parameter.shape)
    description = repr([(name, tuple(p.shape)) for name, p in parameters.items()]).encode()
    digest = int.from_bytes(hashlib.blake2b(description, digest_size=8).digest(), "little")
    return FlatParameters(vector, digest)
