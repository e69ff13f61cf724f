"""The input of convolutions: the order of an image's axes, and unscaled bytes.

The memory order accounts for half of the cost of a convolution on a CPU. Values never change here.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PATCH = 4
"""Pixels of a row that are moved together, as one number of 32 bits."""
WHITE = 255.0


class ChannelsFirst(nn.Module):
    """[N, H, W, C] -> [N, C, H, W]."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 3, 1, 2)


class ChannelsLastInMemory(nn.Module):
    """The same values; with gradients, in channels-last order.

    Convolutions keep that order through the whole network, and their gradients are a third faster
    on CPUs. Inference is not. Bytes are left as they are.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not torch.is_grad_enabled() or x.dtype == torch.uint8:
            return x
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        return x.to(dtype, memory_format=torch.channels_last)


class PatchConv2d(nn.Conv2d):
    """A convolution with a stride of 4 and a kernel of a multiple of it, of floats or of bytes.

    Floats are processed as by any convolution. For bytes the result, in bfloat16, is that for bytes
    divided by 255. The weights are divided instead, since bfloat16 represents bytes exactly but no
    255ths. Patches of 4 x 4 pixels become the channels of one pixel, so that all
    64 values of a stack of four frames are adjacent: the same sums as a convolution with a stride
    of 1 over an image of a quarter of the sides, in the order that suits matrix units.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype != torch.uint8:
            return super().forward(x)
        weight = self.weight.to(torch.bfloat16) / WHITE
        return F.conv2d(_patches(x), _patched(weight), self.bias)


def fits_patches(shape: tuple[int, ...]) -> bool:
    """Whether bytes [N, *shape] can be given to a `PatchConv2d`."""
    return len(shape) == 3 and shape[1] % PATCH == 0 and shape[2] % PATCH == 0


def _patches(x: Tensor) -> Tensor:
    """uint8 [N, C, H, W] -> bfloat16 [N, C * 16, H / 4, W / 4], channels last in memory."""
    num, channels, height, width = x.shape
    rows, columns = height // PATCH, width // PATCH
    quads = x.contiguous().view(torch.int32).view(num, channels, rows, PATCH, columns)
    together = quads.permute(0, 2, 4, 1, 3).contiguous().view(torch.uint8)
    pixels = together.view(num, rows, columns, channels * PATCH * PATCH).to(torch.bfloat16)
    return pixels.permute(0, 3, 1, 2)


def _patched(weight: Tensor) -> Tensor:
    """[O, C, K, K] -> [O, C * 16, K / 4, K / 4], as `_patches` orders its channels and memory."""
    outputs, channels, height, width = weight.shape
    rows, columns = height // PATCH, width // PATCH
    split = weight.view(outputs, channels, rows, PATCH, columns, PATCH).permute(0, 2, 4, 1, 3, 5)
    together = split.contiguous().view(outputs, rows, columns, channels * PATCH * PATCH)
    return together.permute(0, 3, 1, 2)
