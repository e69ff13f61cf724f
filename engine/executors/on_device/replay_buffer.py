"""What a replay buffer does if the whole loop is fused on one device.

Large arrays, observations and actions, stay on the device: rollouts are copied there into one
preallocated tensor, and samples are gathered from it. What sampling needs (rewards, episode ends,
priorities) is small and kept on the CPU, in the same store as elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engine.blueprint import STEP_FIELDS, Blueprint
from engine.clock import Clock
from engine.devices.tensors import BOOKKEEPING, DeviceRollout, DeviceSamples
from engine.devices.visible import CPU
from engine.executors.replay_buffer import ReplayExecutor
from engine.replay.store import FloatArray, Inserted, IntArray
from engine.rollout import Field, Layout, Rollout, Samples, SamplesInfo
from engine.trace.replay_file import DrawnBatch


class DeviceReplayExecutor(ReplayExecutor):
    """Stores and draws on one device; see `ReplayExecutor`.

    Args:
        blueprint, index, clock, resumes, checkpoints, resumed: See `ReplayExecutor`.
        device: The device of the loop; the processor by default.
    """

    def __init__(
        self,
        blueprint: Blueprint,
        index: int,
        clock: Clock,
        resumes: int = 0,
        *,
        checkpoints: Path | None = None,
        resumed: int | None = None,
        device: torch.device | None = None,
    ) -> None:
        self._device = device or torch.device(CPU)
        self._small = self._stored_layout(blueprint)
        super().__init__(
            blueprint, index, clock, None, resumes, checkpoints=checkpoints, resumed=resumed
        )

    def _prepare(self) -> None:
        held_here = {item.name for item in self._small.fields}
        whole = self._whole
        self._kept = {
            item.name: self._allocate(whole, item)
            for item in whole.fields
            if item.name not in held_here
        }
        drawn = self._store.drawn(np.zeros(0, np.int64))
        self._from_device = tuple(
            item.name
            for item in self._layout.fields
            if item.name not in _OF_DRAWING and drawn.source(item.name)[0] in self._kept
        )
        told = [item for item in self._layout.fields if item.name not in self._from_device]
        self._told = Layout(tuple(told), self._layout.num_steps, self._layout.num_envs)

    def _stored_layout(self, blueprint: Blueprint) -> Layout:
        request, whole = blueprint.replay, blueprint.layout
        values = (request.value_fields or ()) if request else ()
        small = {*values, *(item.name for item in STEP_FIELDS)}
        fields = tuple(item for item in whole.fields if item.name in small)
        return Layout(fields, whole.num_steps, whole.num_envs)

    def _allocate(self, layout: Layout, item: Field) -> Tensor:
        dtype = torch.from_numpy(np.empty(0, item.dtype)).dtype
        shape = (self._store.num_slots, *layout.shape(item))
        return torch.zeros(shape, dtype=dtype, device=self._device)

    def _insert(self, rollout: Rollout) -> None:
        assert isinstance(rollout, DeviceRollout), "the rollout came from another device"
        slot = self._store.next_slot
        for name, kept in self._kept.items():
            kept[slot].copy_(rollout.tensors[name])
        buffer = self._small.allocate()
        for name, view in self._small.views(buffer).items():
            view[...] = rollout.tensors[name].cpu().numpy()
        super()._insert(Rollout(rollout.info, buffer))

    def _put_back(self, buffer: npt.NDArray[np.uint8], version: int, time_s: float) -> Inserted:
        slot, views = self._store.next_slot, self._whole.views(buffer)
        for name, kept in self._kept.items():
            kept[slot].copy_(torch.from_numpy(views[name].copy()))
        small = self._small.allocate()
        for name, view in self._small.views(small).items():
            view[...] = views[name]
        return super()._put_back(small, version, time_s)

    def _read(self, number: int) -> npt.NDArray[np.uint8]:
        slot, buffer = number % self._store.num_slots, self._whole.allocate()
        small = self._small.views(self._store.rollout(number))
        for name, view in self._whole.views(buffer).items():
            kept = self._kept.get(name)
            view[...] = small[name] if kept is None else kept[slot].cpu().numpy()
        return buffer

    def _flat(self, samples: Samples) -> npt.NDArray[np.uint8]:
        assert isinstance(samples, DeviceSamples)
        buffer = self._layout.allocate()
        for name, view in self._layout.views(buffer).items():
            view[...] = samples.tensors[name].cpu().numpy()
        return buffer

    def _delivered(self, batch: DrawnBatch | None, buffer: npt.NDArray[np.uint8]) -> Samples:
        assert batch is not None
        views = self._layout.views(buffer.copy())
        small = self._told.allocate()
        for name, view in self._told.views(small).items():
            view[...] = views[name]
        tensors = {name: torch.from_numpy(array) for name, array in views.items()}
        return DeviceSamples(self._info_of(batch), small, self._moved(tensors))

    def _gather(self, info: SamplesInfo, positions: IntArray, weights: FloatArray) -> Samples:
        buffer = self._told.allocate()
        views = self._told.views(buffer)
        self._fill(views, positions, weights)
        tensors = {name: torch.from_numpy(array) for name, array in views.items()}
        return DeviceSamples(info, buffer, {**self._moved(tensors), **self._gathered(positions)})

    def _moved(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What is not for the store or the trace, on the device."""
        return {
            name: values if name in BOOKKEEPING else values.to(self._device)
            for name, values in tensors.items()
        }

    def _gathered(self, positions: IntArray) -> Mapping[str, Tensor]:
        """The fields on the device, [updates, batch size, ...]."""
        drawn = self._store.drawn(positions)
        shape = (self._layout.num_steps, self._layout.num_envs)
        found = {}
        for name in self._from_device:
            field, places = drawn.source(name)
            slot, place = (self._index(indices) for indices in places)
            values = self._kept[field].flatten(1, 2)[slot, place]
            found[name] = values.view(*shape, *values.shape[1:])
        return found

    def _index(self, values: IntArray) -> Tensor:
        return torch.from_numpy(values).to(self._device)


_OF_DRAWING = (*BOOKKEEPING, "weight", "has_burn_in")
"""Fields that are in no array of a rollout."""
