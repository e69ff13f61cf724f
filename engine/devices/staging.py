"""A learner's batches on a device, the next one on its way while one is trained.

    this thread   pack B            pack C
    copies        ....copy B....    wait for A to be trained, copy C to its place
    main stream   train A .........| wait for copy of B, train B ...

There are two places, used in turn. Pinned memory is packed again only when it was copied, and a
place on the device is overwritten only behind the update that reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Generic, TypeVar

from torch import Tensor

from engine.devices.interface import Device, DeviceEvent
from engine.devices.pinned_fields import PinnedFields
from engine.rollout import Arrays, Layout

BatchT = TypeVar("BatchT")


class _Place:
    """Room for one batch; events say until when its memory is in use."""

    def __init__(self, device: Device, layout: Layout) -> None:
        self.mirror = PinnedFields(device, layout)
        self.copied: DeviceEvent | None = None
        self.trained: DeviceEvent | None = None


class AheadStaging(Generic[BatchT]):
    """Stages batches one ahead. All calls are from one thread.

    Args:
        device: Where they are trained.
        layout: Of a batch.
        pack: Writes a batch into arrays of this layout.
        bookkeeping: Fields that stay in main memory, where they are wanted.
    """

    def __init__(
        self,
        device: Device,
        layout: Layout,
        pack: Callable[[Arrays, BatchT], None],
        bookkeeping: Collection[str] = (),
    ) -> None:
        self._main, self._copies = device.main, device.stream()
        self._pack = pack
        self._bookkeeping = frozenset(bookkeeping)
        self._places = (_Place(device, layout), _Place(device, layout))
        self._copies.wait_for(self._main.record())  # what clears the places
        self._next = 0
        self._ahead: tuple[BatchT, _Place] | None = None
        self._training: _Place | None = None

    def stage(self, batch: BatchT) -> None:
        """Packs a batch and starts its copy; `fill` with the same object finds it there."""
        place = self._places[self._next]
        self._next = 1 - self._next
        if place.copied is not None:
            place.copied.wait()
        self._pack(place.mirror.arrays, batch)
        if place.trained is not None:
            self._copies.wait_for(place.trained)
        with self._copies.use():
            place.mirror.send()
        place.copied = self._copies.record()
        self._ahead = (batch, place)

    def fill(self, batch: BatchT) -> dict[str, Tensor]:
        """The batch by field, for the main stream; valid until the call after the next.

        What the main stream was given before is the update of the last batch.
        """
        if self._training is not None:
            self._training.trained = self._main.record()
        if self._ahead is None or self._ahead[0] is not batch:
            self.stage(batch)
        assert self._ahead is not None
        _, place = self._ahead
        self._ahead, self._training = None, place
        assert place.copied is not None
        self._main.wait_for(place.copied)
        return {
            name: place.mirror.host_tensors[name] if name in self._bookkeeping else values
            for name, values in place.mirror.tensors.items()
        }
