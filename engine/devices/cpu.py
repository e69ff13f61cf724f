"""The processor as a device: all work is done when it is queued, so there is nothing to wait for.

Runs use it only where a test asks for it (`engine.devices.visible`): otherwise roles on the
processor neither stage nor copy.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


class CpuEvent:
    """It has always happened."""

    def has_happened(self) -> bool:
        return True

    def wait(self) -> None:
        """Returns at once."""


class CpuStream:
    """Work is done by the thread that asks for it."""

    def use(self) -> AbstractContextManager[object]:
        return nullcontext()

    def record(self) -> CpuEvent:
        return CpuEvent()

    def wait_for(self, event: object) -> None:
        """Whatever the event marks is done already."""


class CpuDevice:
    """See `Device`.

    Args:
        name: Such as `cpu` or `cpu:0`; PyTorch treats all alike.
    """

    def __init__(self, name: str = "cpu") -> None:
        self.name = name
        self.place = torch.device("cpu")
        self.main = CpuStream()

    def stream(self, *, is_urgent: bool = False) -> CpuStream:
        """See `Device`."""
        return CpuStream()

    def pinned(self, num_bytes: int) -> Tensor:
        """See `Device`."""
        return torch.zeros(num_bytes, dtype=torch.uint8)

    def copy(self, target: Tensor, source: Tensor) -> None:
        """See `Device`."""
        target.copy_(source)

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """The work itself: called again, it does the same on the same tensors."""
        work()
        return work
