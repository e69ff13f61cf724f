"""Layers of a policy in plain PyTorch, as `model.py` of a folder with weights has them.

The source of what a network needs is copied from here and from `engine.layers`, so each class and
function must stand alone: it may use `torch`, `nn`, `Tensor`, `Sequence` and each other.
Parameters have the names that they have in the engine's layers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Scaled(nn.Module):
    """Numbers as float32, times a factor: 1/255 for bytes."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x.to(torch.float32) * self.factor


class MeanAndVariance(nn.Module):
    """Mean and variance of all observations of the training."""

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(*shape), requires_grad=False)
        self.variance = nn.Parameter(torch.ones(*shape), requires_grad=False)


class Normalized(nn.Module):
    """Numbers in standard deviations from their mean, at most `limit`."""

    def __init__(
        self, shape: Sequence[int], factor: float = 1.0, limit: float = float("inf")
    ) -> None:
        super().__init__()
        self.factor, self.limit = factor, limit
        self.statistics = MeanAndVariance(shape)

    def forward(self, x: Tensor) -> Tensor:
        centred = x.to(torch.float32) * self.factor - self.statistics.mean
        deviations = centred * torch.rsqrt(self.statistics.variance + 1e-8)
        return deviations.clamp(-self.limit, self.limit)


class Counted(nn.Module):
    """Whole numbers [N, ...], counted from 0: int64 [N, K]."""

    def __init__(self, start: Sequence[int]) -> None:
        super().__init__()
        self.start = tuple(start)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.to(torch.int64).reshape(x.shape[0], -1)
        return flat - torch.tensor(self.start, device=x.device)


class Leaves(nn.Module):
    """An input layer for each leaf of an observation."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, leaves: Sequence[Tensor]) -> list[Tensor]:
        return [layer(leaf) for layer, leaf in zip(self.layers, leaves, strict=True)]


class Encoders(nn.Module):
    """An encoder for each leaf, and a trunk on the concatenation of their features."""

    def __init__(self, encoders: Sequence[nn.Module], trunk: nn.Module) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(encoders)
        self.trunk = trunk

    def forward(self, leaves: Sequence[Tensor]) -> Tensor:
        features = [encoder(leaf) for encoder, leaf in zip(self.encoders, leaves, strict=True)]
        joined: Tensor = self.trunk(torch.cat(features, dim=1))
        return joined


class Embeddings(nn.Module):
    """Each entry as a vector that was learnt; the vectors of all entries are below each other."""

    def __init__(self, nvec: Sequence[int], size: int) -> None:
        super().__init__()
        self.firsts = [sum(nvec[:entry]) for entry in range(len(nvec))]
        self.weight = nn.Parameter(torch.zeros(sum(nvec), size))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight[x + torch.tensor(self.firsts, device=x.device)].flatten(1)


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(relu(x)))), 3 x 3."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        inner: Tensor = self.second(torch.relu(self.first(torch.relu(x))))
        return x + inner


class GruCell(nn.Module):
    """One step of a gated recurrent unit; its state is its output, [N, size]."""

    def __init__(self, num_features: int, size: int) -> None:
        super().__init__()
        self.weight_input = nn.Parameter(torch.zeros(3 * size, num_features))
        self.weight_state = nn.Parameter(torch.zeros(3 * size, size))
        self.bias = nn.Parameter(torch.zeros(3 * size))
        self.bias_candidate = nn.Parameter(torch.zeros(size))

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        x_r, x_z, x_n = nn.functional.linear(x, self.weight_input, self.bias).chunk(3, -1)
        h_r, h_z, h_n = nn.functional.linear(state, self.weight_state).chunk(3, -1)
        r, z = torch.sigmoid(x_r + h_r), torch.sigmoid(x_z + h_z)
        n = torch.tanh(x_n + r * (h_n + self.bias_candidate))
        output = n + z * (state - n)
        return output, output


class LstmCell(nn.Module):
    """One step of a long short-term memory; its state is output and cell, [N, 2 size]."""

    def __init__(self, num_features: int, size: int) -> None:
        super().__init__()
        self.weight_input = nn.Parameter(torch.zeros(4 * size, num_features))
        self.weight_state = nn.Parameter(torch.zeros(4 * size, size))
        self.bias = nn.Parameter(torch.zeros(4 * size))

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        output, cell = state.chunk(2, -1)
        gates = nn.functional.linear(x, self.weight_input, self.bias)
        i, f, g, o = (gates + nn.functional.linear(output, self.weight_state)).chunk(4, -1)
        cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
        output = torch.sigmoid(o) * torch.tanh(cell)
        return output, torch.cat((output, cell), -1)


def best_choices(scores: Tensor, nvec: Sequence[int], mask: Tensor | None = None) -> Tensor:
    """The best choice of each entry, int64 [N, K], by scores [N, sum of nvec].

    A mask, bool like the scores, is False for choices that are not valid.
    """
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    parts = torch.split(scores, list(nvec), dim=-1)
    return torch.stack([part.argmax(-1) for part in parts], -1)


class ChosenValues(nn.Module):
    """Choices counted from 0, [N, K], as the environment takes them: start + choice."""

    start: Tensor

    def __init__(self, shape: Sequence[int], dtype: torch.dtype) -> None:
        super().__init__()
        self.shape, self.dtype = tuple(shape), dtype
        size = torch.Size(shape).numel()
        self.register_buffer("start", torch.zeros(size, dtype=torch.int64))

    def forward(self, choices: Tensor) -> Tensor:
        return (choices + self.start).to(self.dtype).reshape(-1, *self.shape)


class BoundedValues(nn.Module):
    """Reals [N, D] as values of a bounded range: -1 is its lowest, 1 its highest."""

    middle: Tensor
    half_range: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, shape: Sequence[int], squashes: bool = False) -> None:
        super().__init__()
        self.shape, self.squashes = tuple(shape), squashes
        for name in ("middle", "half_range", "low", "high"):
            self.register_buffer(name, torch.zeros(torch.Size(shape).numel()))

    def forward(self, reals: Tensor) -> Tensor:
        units = torch.tanh(reals) if self.squashes else reals.clamp(-1.0, 1.0)
        values = (self.middle + self.half_range * units).clamp(self.low, self.high)
        return values.reshape(-1, *self.shape)


class OpenValues(nn.Module):
    """Reals [N, D] as values of a range of any type that may lack bounds.

    shift + scale * x, clipped to low and high; of whole numbers rounded down, then base is added.
    """

    least: Tensor
    most: Tensor
    scale: Tensor
    shift: Tensor
    low: Tensor
    high: Tensor
    base: Tensor
    last: Tensor

    def __init__(self, shape: Sequence[int], dtype: torch.dtype, squashes: bool = False) -> None:
        super().__init__()
        self.shape, self.dtype, self.squashes = tuple(shape), dtype, squashes
        size = torch.Size(shape).numel()
        for name in ("least", "most", "scale", "shift", "low", "high"):
            self.register_buffer(name, torch.zeros(size, dtype=torch.float64))
        for name in ("base", "last"):
            self.register_buffer(name, torch.zeros(size, dtype=torch.int64))

    def forward(self, reals: Tensor) -> Tensor:
        x = reals.to(torch.float64)
        if self.squashes:
            x = torch.where(torch.isfinite(self.least), torch.tanh(reals).to(x.dtype), x)
        x = x.clamp(self.least, self.most)
        values = self.shift + self.scale * x
        if self.dtype.is_floating_point:
            values = torch.where(x <= self.least, self.low, values)
            values = torch.where(x >= self.most, self.high, values)
            return values.clamp(self.low, self.high).to(self.dtype).reshape(-1, *self.shape)
        offset = values.floor().clamp(self.low, self.high)
        half = (offset / 2).floor()  # so that 2^63 and more also fit into an int64
        whole = half.to(torch.int64) * 2 + (offset - 2 * half).to(torch.int64) + self.base
        whole = whole + (x >= self.most) * self.last
        return whole.to(self.dtype).reshape(-1, *self.shape)
