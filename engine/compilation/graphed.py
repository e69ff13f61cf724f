"""Takes gradient steps by a graph of the device: one launch for each instead of a hundred kernels.

The graph is recorded from the first steps that are asked for. It reads samples and rows from memory
of its own, so a call copies them there; what does not fit it is done in eager mode, kernel by
kernel, as is everything if a step cannot be recorded.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from engine.algorithms.gradient import (
    EagerSteps,
    Order,
    Samples,
    Step,
    Trainable,
    gather,
)
from engine.devices.interface import Device, NotCapturableError


class GraphedSteps:
    """A `StepTaker` for a device.

    Args:
        device: Of all tensors.
        tell: Called once with what has become of it, in words.
    """

    def __init__(self, device: Device, tell: Callable[[str], None] = print) -> None:
        self._device = device
        self._tell = tell
        self._eager = EagerSteps()
        self._graph: _StepGraph | None = None
        self._is_eager = False

    @property
    def has_graph(self) -> bool:
        """Whether steps were recorded."""
        return self._graph is not None

    def take(
        self,
        state: Trainable,
        step: Step,
        samples: Samples,
        order: Order | None = None,
        rate: float = 1.0,
    ) -> Tensor:
        """See `StepTaker`."""
        if self._graph is None and not self._is_eager:
            self._graph = self._record(state, step, samples, order)
        if self._graph is None or not self._graph.fits(state, step, samples, order):
            return self._eager.take(state, step, samples, order, rate)
        return self._graph.run(state, samples, order, rate)

    def _record(
        self, state: Trainable, step: Step, samples: Samples, order: Order | None
    ) -> _StepGraph | None:
        """None if it cannot be recorded; the state is as before in any case."""
        try:
            if state.weights.complete is not None:
                raise NotCapturableError("gradients are added up over several learners")
            graph = _StepGraph(self._device, state, step, samples, order)
        except NotCapturableError as error:
            self._is_eager = True
            self._tell(f"optimiser steps: eager, not a graph: {error}")
            return None
        self._tell("optimiser steps: one graph each")
        return graph


class _StepGraph:
    """A recorded step.

    Args:
        device, state, step, samples, order: See `StepTaker`; `rate` can differ with every call.

    Raises:
        NotCapturableError: It cannot be recorded; `state` is unchanged.
    """

    def __init__(
        self, device: Device, state: Trainable, step: Step, samples: Samples, order: Order | None
    ) -> None:
        self._step, self._vector = step, state.weights.vector
        self._functional, self._changed = step.functional(state), step.changed(state)
        self._samples = {name: values.clone() for name, values in samples.items()}
        rows = order if isinstance(order, Tensor) else None
        self._num_steps = 1 if rows is None else len(rows)
        self._rows = None if rows is None else rows.to(device.place, copy=True)
        self._learning_rate = torch.zeros((), device=device.place)
        self._number = torch.zeros(1, dtype=torch.int64, device=device.place)
        before = [tensor.clone() for tensor in self._changed]
        try:
            with torch.no_grad():
                metrics, _ = self._take()
                shape = (self._num_steps, *metrics.shape)
                self._metrics = torch.zeros(shape, device=device.place)
                self._norms = torch.zeros(self._num_steps, device=device.place)
                self._replay = device.capture(self._take_and_note)
        finally:
            for tensor, values in zip(self._changed, before, strict=True):
                tensor.copy_(values)
            self._number.zero_()

    def fits(self, state: Trainable, step: Step, samples: Samples, order: Order | None) -> bool:
        """Whether these steps are the recorded one."""
        if step is not self._step or state.weights.vector is not self._vector:
            return False
        if (order is None) != (self._rows is None) or set(samples) != set(self._samples):
            return False
        if self._rows is not None and not (
            isinstance(order, Tensor) and order.shape == self._rows.shape
        ):
            return False
        return all(
            values.shape == samples[name].shape and values.dtype == samples[name].dtype
            for name, values in self._samples.items()
        )

    def run(self, state: Trainable, samples: Samples, order: Order | None, rate: float) -> Tensor:
        """Takes all steps; returns the metrics, [K, M]. Does not wait for the device."""
        learning_rate = self._step.learning_rate * rate
        with torch.no_grad():
            for name, values in self._samples.items():
                values.copy_(samples[name])
            if self._rows is not None:
                assert isinstance(order, Tensor)
                self._rows.copy_(order)
            self._learning_rate.fill_(learning_rate)
            for _ in range(self._num_steps):
                self._replay()
            state.weights.steps.note(self._norms.clone(), learning_rate)
            return self._metrics.clone()

    def _take(self) -> tuple[Tensor, Tensor]:
        """One step: metrics [M] and the norm of the gradient."""
        minibatch: Samples = self._samples
        if self._rows is not None:
            rows = self._rows.index_select(0, self._number).squeeze(0)
            minibatch = gather(minibatch, rows)
        return self._functional.write(self._changed, self._learning_rate, minibatch)

    def _take_and_note(self) -> None:
        """One step, of the number that comes next; after the last one comes the first."""
        metrics, norm = self._take()
        self._metrics.index_copy_(0, self._number, metrics.unsqueeze(0))
        self._norms.index_copy_(0, self._number, norm.view(1))
        self._number.add_(1).remainder_(self._num_steps)
