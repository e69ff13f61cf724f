"""Optimiser steps: the most expensive part of training, and the part that can be compiled.

An algorithm that trains by gradient declares one `GradientStep` and lets `state.steps` make it:

    metrics = state.steps.take(state, self._step, samples, order)

Nothing else is needed. Steps run in eager mode at first; the runtime can later put a compiled taker
with the same results into `state.steps` (`engine.compilation.compiled`). To be compilable a
loss reads tensors from its arguments only, has no side effects and does not branch on values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call

from engine.algorithms.flat import LEAST_NORM, FlatParameters
from engine.algorithms.optimizer import (
    BETA_1,
    BETA_2,
    AdamState,
    adam_step,
    clip_gradient_norm,
)

Samples: TypeAlias = Mapping[str, Tensor]
Loss: TypeAlias = Callable[[nn.Module, Samples], tuple[Tensor, Tensor]]
"""(network, minibatch) -> (scalar loss, metrics [M] detached from it: the values to report)."""


Order: TypeAlias = Tensor | Sequence[Tensor]
"""Rows of minibatches: int64 [K, N], or K vectors if learners share them unequally."""


@dataclass(frozen=True, kw_only=True)
class GradientStep:
    """One step of Adam down a loss, with the gradient's norm clipped.

    Attributes:
        loss: The loss to minimise.
        learning_rate, epsilon: Of Adam.
        max_gradient_norm: Longer gradients are scaled down to it.
    """

    loss: Loss
    learning_rate: float
    epsilon: float
    max_gradient_norm: float


class Trainable(Protocol):
    """What a step changes; a `LearnerState`."""

    @property
    def network(self) -> nn.Module: ...

    @property
    def weights(self) -> FlatParameters: ...

    @property
    def optimizer(self) -> AdamState: ...


class StepTaker(Protocol):
    """Takes gradient steps one after the other."""

    def take(
        self,
        state: Trainable,
        step: GradientStep,
        samples: Samples,
        order: Order | None = None,
        rate: float = 1.0,
    ) -> Tensor:
        """Takes one step on each minibatch, in place on `state`.

        Args:
            state: Network, weights and optimiser.
            step: What to do on each minibatch.
            samples: By name; without `order` they are the only minibatch.
            order: Rows of the minibatches, int64 [K, N]: minibatch k is `samples[order[k]]`.
            rate: Factor of the step's learning rate, for schedules.

        Returns:
            The metrics of the loss on each minibatch, [K, M]; K is 1 without `order`.
        """
        ...


class EagerSteps:
    """Makes steps kernel by kernel, in eager mode: the reference for compiled steps."""

    def take(
        self,
        state: Trainable,
        step: GradientStep,
        samples: Samples,
        order: Order | None = None,
        rate: float = 1.0,
    ) -> Tensor:
        """See `StepTaker`."""
        minibatches = [samples] if order is None else (gather(samples, rows) for rows in order)
        return torch.stack([self._take_one(state, step, part, rate) for part in minibatches])

    def _take_one(
        self, state: Trainable, step: GradientStep, minibatch: Samples, rate: float
    ) -> Tensor:
        state.weights.gradient.zero_()
        loss, metrics = step.loss(state.network, minibatch)
        loss.backward()  # type: ignore[no-untyped-call]
        # A loss can be infinite although its gradient is not; this way all learners that share the
        # gradient see that of each.
        state.weights.gradient[:1].add_(loss.detach(), alpha=0)
        adam_step(
            state.weights,
            state.optimizer,
            learning_rate=step.learning_rate * rate,
            epsilon=step.epsilon,
            norm=clip_gradient_norm(state.weights, step.max_gradient_norm),
        )
        return metrics


def gather(samples: Samples, rows: Tensor) -> dict[str, Tensor]:
    """The minibatch of these rows, int64 [N]."""
    return {
        name: values.index_select(0, rows.to(values.device)) for name, values in samples.items()
    }


class FunctionalStep:
    """The same step without side effects, for a compiler to trace.

    Args:
        network: Gives structure and names; its values are not used.
        step: What to do.
    """

    def __init__(self, network: nn.Module, step: GradientStep) -> None:
        self._step = step
        self._bound = _BoundLoss(network, step.loss)
        self._shapes = [(name, p.shape) for name, p in self._bound.named_parameters()]
        self._learns = {name: p.requires_grad for name, p in self._bound.named_parameters()}

    def take(
        self,
        vector: Tensor,
        mean: Tensor,
        variance: Tensor,
        num_steps: Tensor,
        learning_rate: Tensor,
        minibatch: Samples,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Takes one step, or none: `step` without its last result."""
        vector, mean, variance, num_steps, metrics, _ = self.step(
            vector, mean, variance, num_steps, learning_rate, minibatch
        )
        return vector, mean, variance, num_steps, metrics

    def step(
        self,
        vector: Tensor,
        mean: Tensor,
        variance: Tensor,
        num_steps: Tensor,
        learning_rate: Tensor,
        minibatch: Samples,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Makes one step, unless loss or gradient are not finite.

        Args:
            vector: All parameters, float32 [P].
            mean, variance, num_steps: Adam's state; [P], [P] and a scalar.
            learning_rate: Of this step, a scalar; an argument, so that it can be any.
            minibatch: The inputs of the loss.

        Returns:
            New values of the first four, the loss's metrics [M], and the gradient's norm before
            clipping, above zero; or zero if the step was not made.
        """
        before = (vector, mean, variance, num_steps)
        gradient, norm, is_sound, metrics = self._gradient(vector, minibatch)
        num_steps = num_steps + 1
        mean = torch.lerp(mean, gradient, 1 - BETA_1)
        variance = BETA_2 * variance + (1 - BETA_2) * gradient.square()
        step_size = learning_rate / (1 - BETA_1**num_steps)
        deviation = variance.sqrt() / (1 - BETA_2**num_steps).sqrt() + self._step.epsilon
        after = (vector - step_size * (mean / deviation), mean, variance, num_steps)
        vector, mean, variance, num_steps = (
            torch.where(is_sound, new, old) for new, old in zip(after, before, strict=True)
        )
        taken = torch.where(is_sound, norm + LEAST_NORM, torch.zeros_like(norm))
        return vector, mean, variance, num_steps, metrics, taken

    def _gradient(
        self, vector: Tensor, minibatch: Samples
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The clipped gradient [P], zero where nothing learns; its norm before; whether it and the
        loss are finite; and the metrics."""
        pieces = pieces_of(vector, self._shapes)
        learning = {name: piece for name, piece in pieces.items() if self._learns[name]}

        def loss(parameters: dict[str, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
            value, metrics = functional_call(self._bound, {**pieces, **parameters}, (minibatch,))
            return value, (value.detach(), metrics)

        gradients, (value, metrics) = torch.func.grad(loss, has_aux=True)(learning)
        gradients |= {
            name: torch.zeros_like(pieces[name]) for name in pieces if name not in learning
        }
        gradient = torch.cat([gradients[name].reshape(-1) for name, _ in self._shapes])
        norm = torch.linalg.vector_norm(gradient)
        is_sound = torch.isfinite(norm) & torch.isfinite(value)
        clipped = gradient * (self._step.max_gradient_norm / (norm + 1e-6)).clamp(max=1.0)
        return clipped, norm, is_sound, metrics


def pieces_of(vector: Tensor, shapes: Sequence[tuple[str, torch.Size]]) -> dict[str, Tensor]:
    """Views of a flat vector [P], one for each parameter, in order."""
    pieces, position = {}, 0
    for name, shape in shapes:
        pieces[name] = vector[position : position + shape.numel()].view(shape)
        position += shape.numel()
    return pieces


class _BoundLoss(nn.Module):
    """A loss as a module, so that its parameters can be exchanged."""

    def __init__(self, network: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.network = network
        self._loss = loss

    def forward(self, minibatch: Samples) -> tuple[Tensor, Tensor]:
        return self._loss(self.network, minibatch)
