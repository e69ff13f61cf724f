"""Chooses actions on a device for environments in main memory.

A row's inputs are copied to the device in one piece, its outputs back in one piece, by pinned
memory; in between stands one graph of acting, if it can be recorded. Everything is in a stream of
its own, so that it does not stand in line behind a learner's update in the same process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engine.algorithms.base import Algorithm, EnvSlice
from engine.compilation.policy_inference import Choice, PolicyInference, Row, unbound
from engine.devices.interface import Device, NotCapturableError
from engine.devices.pinned_fields import PinnedFields
from engine.rollout import Field, Layout


class CarriedInference(PolicyInference):
    """See `PolicyInference`; the tensors of a rollout are in main memory.

    Args:
        device: Where actions are chosen.
        algorithm, env_slice: See `PolicyInference`.
        generator: Source of randomness, on the device.
        captures: Whether to record acting as a graph.
        tell: Called once with what has become of that, in words.
    """

    def __init__(
        self,
        device: Device,
        algorithm: Algorithm,
        env_slice: EnvSlice,
        generator: torch.Generator,
        *,
        captures: bool = False,
        tell: Callable[[str], None] = print,
    ) -> None:
        self._device, self._stream = device, device.stream(is_urgent=True)
        with self._stream.use():
            super().__init__(algorithm, env_slice, generator)
        self._captures, self._tell = captures, tell
        self._inputs_here: list[Tensor] = []
        self._outputs_here: list[Tensor] = []
        self._on_device: Row = ()
        self._noise = torch.empty(0)
        self._replay: Callable[[], None] | None = None
        self._mirrors: tuple[PinnedFields, PinnedFields] | None = None

    @property
    def has_graph(self) -> bool:
        """Whether acting was recorded."""
        return self._replay is not None

    def load(self, values: npt.NDArray[np.float32]) -> None:
        with self._stream.use():
            super().load(values)

    def rows(
        self, tensors: Mapping[str, Tensor], columns: Sequence[slice] = (slice(None),)
    ) -> list[list[Row]]:
        with self._stream.use():
            rows = [unbound(part) for part in self._parts(tensors, columns)]
            if self._mirrors is None:
                self._prepare(rows[0][0])
        return rows

    def choose(self, row: Choice) -> None:
        assert self._mirrors is not None
        assert isinstance(row, tuple)
        given, chosen = self._mirrors
        count = len(self._inputs_here)
        for here, values in zip(self._inputs_here, row, strict=False):
            here.copy_(values)
        with self._stream.use():
            given.send()
            self._noise.copy_(row[count])
            self._carry_out()
            chosen.fetch()
            done = self._stream.record()
        done.wait()
        for values, here in zip(row[count + 1 :], self._outputs_here, strict=True):
            values.copy_(here)

    def _carry_out(self) -> None:
        if self._replay is None:
            self._act(self._on_device)
        else:
            self._replay()

    def _prepare(self, row: Row) -> None:
        """Allocates what crosses, and records acting, once the shapes of a row are known."""
        count = len(self.inputs)
        self._mirrors = (
            PinnedFields(self._device, _layout_of(self.inputs, row[:count])),
            PinnedFields(self._device, _layout_of(self.names, row[count + 1 :])),
        )
        here, there = zip(
            *(
                (
                    [mirror.host_tensors[name][0] for name in names],
                    [mirror.tensors[name][0] for name in names],
                )
                for mirror, names in zip(self._mirrors, (self.inputs, self.names), strict=True)
            ),
            strict=True,
        )
        self._inputs_here, self._outputs_here = here
        self._noise = torch.zeros_like(row[count])
        self._on_device = (*there[0], self._noise, *there[1])
        for target, values in zip(self._inputs_here, row, strict=False):
            target.copy_(values)
        self._mirrors[0].send()
        self._check(self._on_device)
        if self._captures:
            self._record()
        self._stream.record().wait()  # `choose` writes to the memory that was sent

    def _record(self) -> None:
        try:
            self._replay = self._device.capture(lambda: self._act(self._on_device))
        except NotCapturableError as error:
            self._tell(f"acting: eager, not a graph: {error}")
        else:
            self._tell("acting: one graph for each step")


def _layout_of(names: Sequence[str], tensors: Sequence[Tensor]) -> Layout:
    """One row of these fields, each [B, ...]."""
    fields = tuple(
        Field(name, str(values.dtype).removeprefix("torch."), tuple(values.shape[1:]), num_rows=1)
        for name, values in zip(names, tensors, strict=True)
    )
    return Layout(fields, 1, len(tensors[0]))
