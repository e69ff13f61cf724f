"""Several multi-layer perceptrons of the same shape, computed together: one product for a layer of
all of them instead of one for each."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from engine.layers.trunks import activation_of, in_precision, linear
from engine.spec import NetworkSpec


class StackedLinear(nn.Module):
    """C layers side by side, each with weights of its own.

    Args:
        count: C.
        fan_in, fan_out: Of each.
        gain: Of their orthogonal initialisation; without, they have PyTorch's own.
    """

    def __init__(self, count: int, fan_in: int, fan_out: int, gain: float | None) -> None:
        super().__init__()
        layers = [linear(fan_in, fan_out, gain) for _ in range(count)]
        self.weight = nn.Parameter(torch.stack([layer.weight.detach().t() for layer in layers]))
        self.bias = nn.Parameter(torch.stack([layer.bias.detach()[None] for layer in layers]))

    def forward(self, x: Tensor) -> Tensor:
        """[C, N, fan_in] -> [C, N, fan_out]; of the first c layers if x is [c, N, fan_in]."""
        count = x.shape[0]
        # Added by itself: compiled, in one pass with what follows; `baddbmm` would copy it first.
        return torch.bmm(x, self.weight[:count]) + self.bias[:count]


def stacked_mlp(count: int, num_inputs: int, spec: NetworkSpec) -> tuple[nn.Module, int]:
    """The hidden layers of C multi-layer perceptrons, [C, N, num_inputs] -> [C, N, features].

    Returns:
        The layers and their number of features.
    """
    layers: list[nn.Module] = []
    sizes = [num_inputs, *spec.hidden_sizes]
    for fan_in, fan_out in itertools.pairwise(sizes):
        layer = StackedLinear(count, fan_in, fan_out, spec.gain_of("hidden"))
        layers += [layer, activation_of(spec)]
    return in_precision(nn.Sequential(*layers), spec), sizes[-1]
