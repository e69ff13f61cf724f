"""Where the rollouts of tensor environments are written, and where weights come from.

With policy `gpu-only` both stay on the device of the loop. Otherwise they are as those of other
actors: a rollout is one buffer, in memory that the roles of the host share if a slot is free.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from engine.compilation.policy_inference import PolicyInference, as_tensors
from engine.devices.tensors import DeviceRollout, DeviceWeights, allocate_on
from engine.rollout import Layout, Rollout, RolloutInfo, Weights
from engine.wire.arena import Arena
from engine.wire.frames import allocate_framed

NO_BUFFER = Layout((), 0, 0).allocate()


class RolloutMemory(Protocol):
    """Of one actor."""

    @property
    def place(self) -> torch.device:
        """The device of the rollouts."""
        ...

    def begin(self) -> dict[str, Tensor]:
        """The fields of a new rollout, which has any values."""
        ...

    def finish(self, info: RolloutInfo, tensors: dict[str, Tensor]) -> Rollout:
        """The rollout that was begun last, with these fields."""
        ...

    def load(self, weights: Weights, inference: PolicyInference) -> None:
        """Acts with these weights from now on."""
        ...


class DeviceRollouts:
    """A `RolloutMemory` of tensors that stay on a device.

    Args:
        layout: Of a rollout.
        place: The device.
    """

    def __init__(self, layout: Layout, place: torch.device) -> None:
        self._layout = layout
        self.place = place

    def begin(self) -> dict[str, Tensor]:
        """See `RolloutMemory`."""
        return allocate_on(self.place, self._layout)

    def finish(self, info: RolloutInfo, tensors: dict[str, Tensor]) -> Rollout:
        """See `RolloutMemory`."""
        return DeviceRollout(info, NO_BUFFER, tensors)

    def load(self, weights: Weights, inference: PolicyInference) -> None:
        """See `RolloutMemory`."""
        assert isinstance(weights, DeviceWeights), "the learner is on another device"
        inference.parameters.load(weights.vector)
        inference.refresh()


class BufferedRollouts:
    """A `RolloutMemory` of one buffer for each rollout.

    Args:
        layout: Of a rollout.
        arena: Memory shared with the other roles of this host, if there is any.
        index, epoch: Number and incarnation of the actor.
    """

    def __init__(self, layout: Layout, arena: Arena | None, index: int, epoch: int) -> None:
        self._layout, self._arena = layout, arena
        self._index, self._epoch = index, epoch
        if arena is not None:
            arena.reclaim(index)
        self.place = torch.device("cpu")
        self._buffer = NO_BUFFER

    def allocate(self) -> np.ndarray:
        """Memory for a rollout, uint8 [num_bytes]: shared if a slot is free, else private."""
        shared = None if self._arena is None else self._arena.take(self._index, self._epoch)
        return allocate_framed(self._layout.num_bytes) if shared is None else shared

    def begin(self) -> dict[str, Tensor]:
        """See `RolloutMemory`."""
        self._buffer = self.allocate()
        return as_tensors(self._layout.views(self._buffer))

    def finish(self, info: RolloutInfo, tensors: dict[str, Tensor]) -> Rollout:
        """See `RolloutMemory`; the fields lie in the buffer."""
        buffer, self._buffer = self._buffer, NO_BUFFER
        return Rollout(info, buffer)

    def load(self, weights: Weights, inference: PolicyInference) -> None:
        """See `RolloutMemory`."""
        inference.load(weights.buffer.view(np.float32))
