"""The fields of a layout twice: in pinned main memory, and on a device. Each is one buffer."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from engine.devices.interface import Device
from engine.rollout import Arrays, Layout


class PinnedFields:
    """Both copies, allocated once, so that all fields cross in one copy.

    Args:
        device: The device.
        layout: Of the fields.

    Attributes:
        arrays: The fields in main memory.
        tensors: The fields on the device.
        host_tensors: The fields in main memory, as tensors.
    """

    def __init__(self, device: Device, layout: Layout) -> None:
        self._device = device
        self._here = device.pinned(layout.num_bytes)
        self._there = torch.zeros(layout.num_bytes, dtype=torch.uint8, device=device.place)
        self.arrays: Arrays = layout.views(self._here.numpy())
        self.host_tensors: Mapping[str, Tensor] = tensors_of(self._here, layout)
        self.tensors: Mapping[str, Tensor] = tensors_of(self._there, layout)

    def send(self) -> None:
        """Queues a copy of all fields to the device, in the current stream."""
        self._device.copy(self._there, self._here)

    def fetch(self) -> None:
        """Queues a copy of all fields to main memory, in the current stream."""
        self._device.copy(self._here, self._there)


def tensors_of(buffer: Tensor, layout: Layout) -> dict[str, Tensor]:
    """The fields as tensors on a buffer, uint8 [num_bytes], without copies."""
    found = {}
    for item, offset in zip(layout.fields, layout.offsets, strict=False):
        dtype, shape = torch_dtype(item.dtype), layout.shape(item)
        size = math.prod(shape) * dtype.itemsize
        found[item.name] = buffer[offset : offset + size].view(dtype).view(shape)
    return found


def torch_dtype(name: str) -> torch.dtype:
    """`torch.float32` of `float32`, by its NumPy name."""
    return torch.from_numpy(np.empty(0, name)).dtype
