"""What TianJi asks of a device, and nothing else; CUDA is one implementation.

Work on a device is queued in *streams*, each in order, and a thread does not wait for it. An
*event* marks a place in a stream: another stream can start behind it, and a thread can ask whether
it was reached. Copies between a device and *pinned* main memory run beside everything else.

On the processor (`CpuDevice`) all work is done when it is queued, so the same code runs there with
events that have always happened: the twin for tests, as `local` is of policies.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

import torch
from torch import Tensor


class DeviceEvent(Protocol):
    """A place in a stream."""

    def has_happened(self) -> bool:
        """Whether all work before it is done; does not wait."""
        ...

    def wait(self) -> None:
        """Blocks this thread until all work before it is done; other threads run meanwhile."""
        ...


class DeviceStream(Protocol):
    """A queue of work."""

    def use(self) -> AbstractContextManager[object]:
        """What this thread asks of the device within the block goes into this stream."""
        ...

    def record(self) -> DeviceEvent:
        """Marks the end of what the stream has been given so far."""
        ...

    def wait_for(self, event: DeviceEvent) -> None:
        """What the stream is given from now on starts after the event; the thread goes on."""
        ...


class Device(Protocol):
    """One device of this process.

    Attributes:
        place: As PyTorch names it.
        main: The stream of everything that asks for no other.
    """

    @property
    def place(self) -> torch.device: ...

    @property
    def main(self) -> DeviceStream: ...

    def stream(self, *, is_urgent: bool = False) -> DeviceStream:
        """A new stream; the work of an urgent one goes first where there is a choice."""
        ...

    def pinned(self, num_bytes: int) -> Tensor:
        """Main memory that the device copies from and to by itself, uint8 [num_bytes] of zeros."""
        ...

    def copy(self, target: Tensor, source: Tensor) -> None:
        """Queues a copy in the current stream; at least one of both is on the device, and what is
        in main memory is pinned and not touched before an event behind the copy."""
        ...

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """Records what `work` asks of the device, as one graph with fixed memory and shapes.

        Args:
            work: Reads and writes tensors that stay where they are. It is called a few times before
                it is recorded; nothing of that may matter.

        Returns:
            Queues all of it in the current stream.

        Raises:
            NotCapturableError: It waits for the device, or asks for what no graph can hold.
        """
        ...


class NotCapturableError(Exception):
    """Work cannot be recorded as a graph; the text says why."""
