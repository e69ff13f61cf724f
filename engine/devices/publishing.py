"""Takes weights out of a device that goes on computing.

    main stream     update 1 | snapshot | update 2 ...
    side stream                wait for it, copy to pinned memory
    another thread               ... has the copy happened? then it is sent

The snapshot stays on the device, so it takes no longer than reading the parameters once.
"""

from __future__ import annotations

import threading
from collections import deque

import numpy as np
import torch
from torch import Tensor

from engine.devices.interface import Device, DeviceEvent
from engine.rollout import Weights
from engine.wire.frames import allocate_framed


class _Copy:
    """One set of weights on its way."""

    def __init__(self, device: Device, num_floats: int) -> None:
        self.snapshot = torch.zeros(num_floats, device=device.place)
        self.pinned = device.pinned(4 * num_floats).view(torch.float32)
        self.copied: DeviceEvent | None = None
        self.version = -1


class Publisher:
    """Two copies, used in turn: if neither was taken in time, the newest weights win.

    `publish` is called by the thread that trains, the others by the one that sends.

    Args:
        device: Where the weights are.
        num_floats: P.
    """

    def __init__(self, device: Device, num_floats: int) -> None:
        self._device, self._main, self._side = device, device.main, device.stream()
        self._copies = deque(_Copy(device, num_floats) for _ in range(2))
        self._under_way: deque[_Copy] = deque()
        self._lock = threading.Lock()
        self._side.wait_for(self._main.record())  # what clears the copies

    @property
    def is_busy(self) -> bool:
        """Whether weights are on their way."""
        return bool(self._under_way)

    def publish(self, version: int, vector: Tensor) -> None:
        """Queues a copy of the parameters, float32 [P], as the main stream leaves them."""
        with self._lock:
            copy = self._copies[0]
            self._copies.rotate(-1)
            if copy in self._under_way:
                self._under_way.remove(copy)
            if copy.copied is not None:
                self._main.wait_for(copy.copied)
            with self._main.use():
                copy.snapshot.copy_(vector)
            self._side.wait_for(self._main.record())
            with self._side.use():
                self._device.copy(copy.pinned, copy.snapshot)
            copy.copied, copy.version = self._side.record(), version
            self._under_way.append(copy)

    def take(self) -> Weights | None:
        """The oldest weights that have arrived; None if none have. Does not wait."""
        with self._lock:
            if not self._under_way:
                return None
            copy = self._under_way[0]
            assert copy.copied is not None
            if not copy.copied.has_happened():
                return None
            self._under_way.popleft()
            buffer = allocate_framed(copy.pinned.nbytes)
            buffer.view(np.float32)[:] = copy.pinned.numpy()
            return Weights(copy.version, buffer)

    def wait(self) -> None:
        """Blocks until `take` has all that was published."""
        with self._lock:
            last = self._under_way[-1] if self._under_way else None
        if last is not None and last.copied is not None:
            last.copied.wait()
