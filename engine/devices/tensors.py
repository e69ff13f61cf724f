"""What stays on the device of a fused loop: rollouts, weights, the learner's state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engine.algorithms.base import LearnerState, TargetNetwork
from engine.algorithms.optimizer import AdamState
from engine.devices.pinned_fields import torch_dtype
from engine.layers.flat import flatten
from engine.rollout import Layout, Rollout, Samples, Weights
from engine.wire.frames import allocate_framed

BOOKKEEPING = ("key", "version")
"""Fields of samples that are for the store or the trace, and stay in main memory."""


@dataclass(frozen=True, eq=False)
class DeviceRollout(Rollout):
    """A rollout that stays on its device, and so in its process; it has no buffer.

    Attributes:
        tensors: The fields of the layout.
    """

    tensors: Mapping[str, Tensor] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, eq=False)
class DeviceSamples(Samples):
    """Samples that stay on their device.

    Attributes:
        tensors: By name, [updates, batch size, ...]; keys and versions are on the CPU.
    """

    tensors: Mapping[str, Tensor] = field(default_factory=dict, repr=False)


class DeviceWeights(Weights):
    """Parameters that stay on their device until another process requests them.

    Args:
        version: As in `Weights`.
        vector: All parameters, float32 [P].
    """

    def __init__(self, version: int, vector: Tensor) -> None:
        object.__setattr__(self, "version", version)
        object.__setattr__(self, "vector", vector)

    vector: Tensor

    @property
    def num_bytes(self) -> int:
        return self.vector.numel() * self.vector.element_size()

    @cached_property
    def buffer(self) -> npt.NDArray[np.uint8]:
        """The raw bytes, uint8 [4 P], copied from the device on first use."""
        buffer = allocate_framed(self.num_bytes)
        buffer.view(np.float32)[:] = self.vector.cpu().numpy()
        return buffer


def allocate_on(device: torch.device, layout: Layout) -> dict[str, Tensor]:
    """The fields of a layout as uninitialised tensors on a device, each `layout.shape(field)`."""
    return {
        item.name: torch.empty(
            layout.shape(item),
            dtype=torch_dtype(item.dtype),
            device=device,
        )
        for item in layout.fields
    }


class DeviceStaging:
    """A batch of several rollouts of one device, side by side along the environment axis."""

    def fill(self, rollouts: Sequence[Rollout]) -> dict[str, Tensor]:
        """Each field of the batch as [T, B, ...]; a single rollout is not copied."""
        parts = [rollout.tensors for rollout in rollouts if isinstance(rollout, DeviceRollout)]
        assert len(parts) == len(rollouts), "a rollout came from another device"
        if len(parts) == 1:
            return dict(parts[0])
        return {name: torch.cat([part[name] for part in parts], dim=1) for name in parts[0]}


class DeviceSampleStaging:
    """A batch of samples of one device, as it was drawn."""

    def fill(self, samples: Samples) -> dict[str, Tensor]:
        """Each field of the batch as [N, ...], without a copy."""
        assert isinstance(samples, DeviceSamples), "the samples came from another device"
        return dict(samples.tensors)


def state_on(device: torch.device, state: LearnerState) -> LearnerState:
    """The same state on a device; its generator stays on the CPU."""
    if state.weights.vector.device == device:
        return state
    network = state.network.to(device)
    target = state.target
    if target is not None:
        of_target = target.network.to(device)
        target = TargetNetwork(of_target, flatten(of_target))
    moments = state.optimizer
    return replace(
        state,
        network=network,
        weights=flatten(network),
        optimizer=AdamState(
            moments.mean.to(device), moments.variance.to(device), moments.num_steps.to(device)
        ),
        target=target,
    )
