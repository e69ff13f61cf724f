"""Runs a function by a compiled library if the call fits it, and in eager mode if not."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from engine.algorithms.gradient import EagerSteps, Order, Samples, Step, Trainable
from engine.compilation.fit import Fit
from engine.compilation.library import Library


class CompiledSteps:
    """A `StepTaker` that calls a library: one gradient step, including the choice of its minibatch.

    Args:
        library: Of the kind `steps`.

    Attributes:
        fit: Whether calls fit it.
    """

    def __init__(self, library: Library) -> None:
        self._library = library
        signature = dict(library.signature)
        self._metrics_shape = signature.pop(METRICS).shape
        self.fit = Fit(signature)
        self._step: Step | None = None
        self._eager = EagerSteps()

    def take(
        self,
        state: Trainable,
        step: Step,
        samples: Samples,
        order: Order | None = None,
        rate: float = 1.0,
    ) -> Tensor:
        """See `StepTaker`. The first step that fits the signature is the one that was compiled."""
        is_ours = self._step is None or step is self._step
        if not is_ours or not self.fit.takes(steps_named(state, samples, order)):
            return self._eager.take(state, step, samples, order, rate)
        self._step = step
        with torch.no_grad():
            learning_rate = step.learning_rate * rate
            rows = [] if order is None else [_stacked(order)]
            count = len(rows[0]) if rows else 1
            metrics, norms = torch.empty(count, *self._metrics_shape), torch.empty(count)
            arguments = step_arguments(state, step, samples, learning_rate)
            self._library.scan(arguments, [*rows, metrics, norms])
            state.weights.steps.note(norms, learning_rate)
            return metrics


METRICS = "metrics"
"""In the signature of a step: what it writes for each minibatch, beside the gradient's norm."""


def _stacked(order: Order) -> Tensor:
    return order if isinstance(order, Tensor) else torch.stack(list(order))


def step_arguments(
    state: Trainable, step: Step, samples: Samples, learning_rate: float
) -> list[Tensor]:
    """The arguments of a compiled step, without the rows of its minibatch, and without its last
    two: where it writes the metrics [M], and the norm of the gradient, a scalar."""
    named = (samples[name] for name in sorted(samples))
    return [*step.changed(state), torch.tensor(learning_rate), *named]


def steps_named(state: Trainable, samples: Samples, order: Order | None) -> dict[str, Tensor]:
    """What a compiled step relies on, beside the shape of its metrics, by name."""
    named = {f"samples.{name}": samples[name] for name in samples}
    rows = {} if order is None else {"rows": order[0]}
    return {"vector": state.weights.vector, **named, **rows}


def act_named(weights: Sequence[Tensor], row: Sequence[Tensor]) -> dict[str, Tensor]:
    """What compiled acting relies on, by name: all parameters, and one row of a rollout."""
    return {str(i): tensor for i, tensor in enumerate((*weights, *row))}
