"""What a compiled library of optimiser steps computes, without a compiler."""

from __future__ import annotations

import torch
from torch import Tensor

from engine.algorithms.gradient import Order, Samples, Step, Trainable, gather


class FunctionalTaker:
    """A `StepTaker` that makes the steps that are compiled."""

    def take(
        self,
        state: Trainable,
        step: Step,
        samples: Samples,
        order: Order | None = None,
        rate: float = 1.0,
    ) -> Tensor:
        """See `StepTaker`."""
        told = []
        functional, learning_rate = step.functional(state), step.learning_rate * rate
        for rows in [None] if order is None else order:
            minibatch = samples if rows is None else gather(samples, rows)
            metrics, norm = functional.write(
                step.changed(state), torch.tensor(learning_rate), minibatch
            )
            state.weights.steps.note(norm, learning_rate)
            told.append(metrics)
        return torch.stack(told)
