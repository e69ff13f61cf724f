"""The device of a fused loop, and what stays on it: rollouts, weights, the learner's state.

A role's process is forked from one that must not initialise CUDA, since a forked child could not
use it then. So devices are only counted here, and used only in the roles.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engine.algorithms.base import LearnerState, TargetNetwork
from engine.algorithms.optimizer import AdamState
from engine.errors import PreflightError
from engine.layers.flat import flatten
from engine.rollout import Layout, Rollout, Samples, Weights
from engine.wire.codec import allocate_framed

CPU = "cpu"


def find_devices(gpus: Sequence[int] | None) -> tuple[str, ...]:
    """The devices that fused loops on this host are assigned to.

    Args:
        gpus: Those that the inventory gives to the run; None if it does not say.

    Returns:
        All CUDA devices that PyTorch finds, else the CPU.

    Raises:
        PreflightError: The inventory lists more GPUs than PyTorch finds.
    """
    count = 0 if gpus is not None and not gpus else torch.cuda.device_count()
    if gpus and count < len(gpus):
        raise PreflightError(
            f"the inventory gives this run the GPUs {', '.join(map(str, gpus))}, but PyTorch finds"
            f" {count or 'none'} there",
            where=f"host {platform.node()}",
            fix="install a PyTorch with CUDA there and check nvidia-smi, or remove `gpus:`",
        )
    return tuple(f"cuda:{number}" for number in range(count)) or (CPU,)


def visible_gpus(names: Sequence[str]) -> list[str]:
    """The names of the GPUs of this host that this process can use."""
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if allowed is None:
        return list(names)
    numbers = [int(part) for part in allowed.split(",") if part.strip().isdigit()]
    return [names[number] for number in numbers if number < len(names)]


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
            dtype=torch.from_numpy(np.empty(0, item.dtype)).dtype,
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
