"""The networks of the tasks, for every baseline that takes its user's network. PyTorch only."""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from torch import Tensor, nn

ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU}


class Scaled(nn.Module):
    """Bytes to [0, 1]; all else to float32."""

    def forward(self, x: Tensor) -> Tensor:
        return x.float() / 255 if x.dtype == torch.uint8 else x.float()


class InBfloat16(nn.Module):
    """Runs the wrapped module in bfloat16; the output is float32."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16):
            features: Tensor = self.inner(x)
        return features.float()


def linear(num_in: int, num_out: int, gain: float) -> nn.Linear:
    """Orthogonal weights, no bias at first."""
    layer = nn.Linear(num_in, num_out)
    nn.init.orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer


def is_shared(network: dict[str, Any]) -> bool:
    """Whether policy and value have one trunk."""
    return bool(network["name"] != "mlp")


def trunk(network: dict[str, Any], shape: tuple[int, ...]) -> tuple[nn.Module, int]:
    """From observations to features.

    Args:
        network: The section `network` of the job.
        shape: Of one observation; images as [C, H, W].

    Returns:
        The trunk, and how many features it gives.
    """
    if network["name"] == "mlp":
        sizes = [math.prod(shape), *network["hidden_sizes"]]
        layers: list[nn.Module] = [Scaled(), nn.Flatten()]
        for num_in, num_out in itertools.pairwise(sizes):
            layers += [linear(num_in, num_out, 2**0.5), ACTIVATIONS[network["activation"]]()]
        return nn.Sequential(*layers), sizes[-1]
    filters, num_units = {
        "nature_cnn": ([(32, 8, 4), (64, 4, 2), (64, 3, 1)], 512),
        "minatar_cnn": ([(16, 3, 1)], 128),
    }[network["name"]]
    layers, channels = [Scaled()], shape[0]
    for count, kernel, stride in filters:
        convolution = nn.Conv2d(channels, count, kernel, stride)
        nn.init.orthogonal_(convolution.weight, 2**0.5)
        assert convolution.bias is not None
        nn.init.zeros_(convolution.bias)
        layers += [convolution, nn.ReLU()]
        channels = count
    flat = nn.Sequential(*layers, nn.Flatten())
    with torch.no_grad():
        num_flat = int(flat(torch.zeros(1, *shape)).shape[-1])
    whole: nn.Module = nn.Sequential(flat, linear(num_flat, num_units, 2**0.5), nn.ReLU())
    return (InBfloat16(whole) if network["precision"] == "bfloat16" else whole), num_units
