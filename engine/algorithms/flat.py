"""All parameters of a network as one flat tensor, and all gradients as another.

The network's parameters become views, so an optimiser step, a norm or a copy to the wire is one
operation on one tensor instead of one for each layer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn


class StepLog:
    """Counts optimiser steps, and those skipped because a value was not finite."""

    def __init__(self) -> None:
        self._is_taken: list[Tensor] = []
        self._wanted = self._taken = 0

    def note(self, is_taken: Tensor) -> None:
        """Counts one step by a bool scalar that may not be computed yet; does not synchronize."""
        self._is_taken.append(is_taken)
        if len(self._is_taken) == MAX_NOTED:
            self._add_up()

    def count(self) -> tuple[int, int]:
        """Steps requested, and steps skipped, since the last call."""
        if self._is_taken:
            self._add_up()
        counts = self._wanted, self._wanted - self._taken
        self._wanted = self._taken = 0
        return counts

    def _add_up(self) -> None:
        noted = self._is_taken
        self._wanted += len(noted)
        self._taken += int(noted[0] if len(noted) == 1 else torch.stack(noted).sum())
        self._is_taken = []


MAX_NOTED = 1024
"""Sum up beyond this many, so that memory stays bounded if they are never counted."""


@dataclass
class FlatParameters:
    """Flat views of a network.

    Attributes:
        vector: All parameters, float32 [P]; its `grad` is all gradients.
        digest: 64 bits that differ between parameter layouts.
        complete: Adds the shares of other learners to a gradient [P], in place.
        steps: Counts of optimiser steps.
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
    position = 0
    for parameter in parameters.values():
        span = slice(position, position + parameter.numel())
        parameter.data = vector.data[span].view(parameter.shape)
        parameter.grad = vector.grad[span].view(parameter.shape)
        position = span.stop
    description = repr([(name, tuple(p.shape)) for name, p in parameters.items()]).encode()
    digest = int.from_bytes(hashlib.blake2b(description, digest_size=8).digest(), "little")
    return FlatParameters(vector, digest)
