"""Where a learner on a device trains: see `LearnerMemory`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from engine.algorithms.base import LearnerState
from engine.algorithms.gradient import StepTaker
from engine.blueprint import Blueprint
from engine.compilation.graphed import GraphedSteps
from engine.compilation.staging import lay_side_by_side, side_by_side
from engine.devices.interface import Device
from engine.devices.publishing import Publisher
from engine.devices.staging import AheadStaging
from engine.devices.tensors import (
    BOOKKEEPING,
    DeviceSampleStaging,
    DeviceStaging,
    DeviceWeights,
    state_on,
)
from engine.devices.visible import CPU
from engine.roles.events import WeightsPending
from engine.rollout import Arrays, Rollout, Samples, Weights
from engine.wire.frames import allocate_framed


class FusedMemory:
    """That of a loop that is fused on one device: nothing leaves it unless it is asked for.

    Args:
        device: The device; the processor has compiled steps instead of graphs.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self.fill = DeviceStaging().fill
        self.fill_samples = DeviceSampleStaging().fill
        self.publish = self.export

    def place(self, state: LearnerState) -> LearnerState:
        return state_on(self._device.place, state)

    def make_steps(self) -> StepTaker | None:
        return None if self._device.place.type == CPU else GraphedSteps(self._device)

    def export(self, version: int, vector: Tensor) -> Weights:
        return DeviceWeights(version, vector.clone())


class StagedMemory:
    """That of a learner whose actors are elsewhere: batches come through pinned memory.

    Args:
        blueprint: The run.
        device: Where it trains.
    """

    def __init__(self, blueprint: Blueprint, device: Device) -> None:
        self.device = device
        self._num_bytes = blueprint.weights.num_bytes
        layout = blueprint.layout

        def lay(arrays: Arrays, rollouts: tuple[Rollout, ...]) -> None:
            lay_side_by_side(arrays, rollouts, layout)

        def copy(arrays: Arrays, samples: Samples) -> None:
            for name, values in blueprint.samples.views(samples.buffer).items():
                np.copyto(arrays[name], values)

        self._rollouts: AheadStaging[tuple[Rollout, ...]] | None = None
        self._samples: AheadStaging[Samples] | None = None
        if blueprint.replay is None:
            batch = side_by_side(layout, blueprint.rollouts_per_batch)
            self._rollouts = AheadStaging(device, batch, lay)
        else:
            self._samples = AheadStaging(device, blueprint.samples, copy, BOOKKEEPING)

    def place(self, state: LearnerState) -> LearnerState:
        return state_on(self.device.place, state)

    def make_steps(self) -> StepTaker:
        return GraphedSteps(self.device)

    def stage(self, batch: tuple[Rollout, ...] | Samples) -> None:
        """Begins to move the next batch."""
        if isinstance(batch, Samples):
            assert self._samples is not None
            self._samples.stage(batch)
        else:
            assert self._rollouts is not None
            self._rollouts.stage(batch)

    def fill(self, rollouts: Sequence[Rollout]) -> dict[str, Tensor]:
        assert self._rollouts is not None
        assert isinstance(rollouts, tuple)
        return self._rollouts.fill(rollouts)

    def fill_samples(self, samples: Samples) -> dict[str, Tensor]:
        assert self._samples is not None
        return self._samples.fill(samples)

    def export(self, version: int, vector: Tensor) -> Weights:
        """Waits for the device."""
        buffer = allocate_framed(self._num_bytes)
        buffer.view(np.float32)[:] = vector.cpu().numpy()
        return Weights(version, buffer)

    def publish(self, version: int, vector: Tensor) -> Weights | WeightsPending:
        """As `export`."""
        return self.export(version, vector)


class AheadMemory(StagedMemory):
    """The same for updates in a thread of their own: weights are published beside the next one.

    `prepare` and `stage` are called by the thread that gives the updates; `fill` and `publish` by
    that of the updates.

    Args:
        blueprint: The run.
        device: Where it trains.

    Attributes:
        publisher: Has the weights that are on their way.
    """

    def __init__(self, blueprint: Blueprint, device: Device) -> None:
        super().__init__(blueprint, device)
        self.publisher = Publisher(device, self._num_bytes // 4)
        self._prepared: dict[str, Tensor] = {}

    def prepare(self, batch: tuple[Rollout, ...] | Samples) -> None:
        """Has the batch of the next update ready for the main stream."""
        if isinstance(batch, Samples):
            self._prepared = super().fill_samples(batch)
        else:
            self._prepared = super().fill(batch)

    def fill(self, rollouts: Sequence[Rollout]) -> dict[str, Tensor]:
        """What `prepare` was given last."""
        return self._prepared

    def fill_samples(self, samples: Samples) -> dict[str, Tensor]:
        """What `prepare` was given last."""
        return self._prepared

    def publish(self, version: int, vector: Tensor) -> WeightsPending:
        """Does not wait for the device."""
        self.publisher.publish(version, vector)
        return WeightsPending(version)
