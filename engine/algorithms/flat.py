"""All parameters of a network as one flat tensor, and all gradients as another.

The network's parameters become views, so an optimiser step, a norm or a copy to the wire is one
operation on one tensor instead of one for each layer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass
class FlatParameters:
    """Flat views of a network.

    Attributes:
        vector: All parameters, float32 [P]; its `grad` is all gradients.
        digest: 64 bits that differ between parameter layouts.
        complete: Adds to a gradient what other learners have of it, in place.
    """

    vector: nn.Parameter
    digest: int
    complete: Callable[[Tensor], None] | None = None
    _is_complete: bool = False

    @property
    def num_bytes(self) -> int:
        return self.vector.numel() * self.vector.element_size()

    @property
    def gradient(self) -> Tensor:
        assert self.vector.grad is not None
        return self.vector.grad

    def complete_gradient(self) -> Tensor:
        """The gradient with the share of every learner in it; to be called before it is used.

        Completing is done once for each optimiser step, which ends with `spend_gradient`.
        """
        if self.complete is not None and not self._is_complete:
            self.complete(self.gradient)
            self._is_complete = True
        return self.gradient

    def spend_gradient(self) -> None:
        """Notes that the gradient has been used; the next one has to be completed again."""
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
