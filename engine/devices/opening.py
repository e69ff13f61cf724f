"""From the name of a device to the device."""

from __future__ import annotations

from engine.devices.cpu import CpuDevice
from engine.devices.cuda import CudaDevice
from engine.devices.interface import Device
from engine.devices.visible import CPU


def open_device(name: str) -> Device | None:
    """The device of this name; None for the processor, where nothing needs to be carried.

    Args:
        name: `cpu`, `cuda:N`, or in tests `cpu:N`: the processor by way of a device.
    """
    if name == CPU:
        return None
    return CpuDevice(name) if name.startswith(CPU) else CudaDevice(name)
