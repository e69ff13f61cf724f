"""Optimiser steps: the most expensive part of training, and the part that can be compiled.

An algorithm that trains by gradient declares one `GradientStep` and lets `state.steps` make it:

    metrics = state.steps.take(state, self._step, samples, order)

Nothing else is needed. Steps run in eager mode at first; the runtime can later put a compiled taker
with the same results into `state.steps` (`engine.compilation.compiled`). To be compilable a
loss reads tensors from its arguments only, has no side effects and does not branch on values.

A `GradientStep` moves all that learns down one loss. Several losses, each with parameters of its
own, and a target network: `engine.algorithms.step_sequence`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call

from engine.algorithms.optimizer import BETA_1, BETA_2, AdamState, adam_step, scale_down
from engine.layers.flat import LEAST_NORM, FlatParameters, span_of

Samples: TypeAlias = Mapping[str, Tensor]
Loss: TypeAlias = Callable[..., tuple[Tensor, Tensor]]
"""(network, minibatch) -> (scalar loss, metrics [M] detached from it: the values to report)."""


Order: TypeAlias = Tensor | Sequence[Tensor]
"""Rows of minibatches: int64 [K, N], or K vectors if learners share them unequally."""


class Follower(Protocol):
    """A network that follows another one slowly; a `TargetNetwork`."""

    @property
    def network(self) -> nn.Module: ...

    @property
    def weights(self) -> FlatParameters: ...


class Trainable(Protocol):
    """What a step changes; a `LearnerState`."""

    @property
    def network(self) -> nn.Module: ...

    @property
    def weights(self) -> FlatParameters: ...

    @property
    def optimizer(self) -> AdamState: ...

    @property
    def target(self) -> Follower | None: ...


class FunctionalStep(Protocol):
    """A step whose only side effect is on the tensors that it is given, for a compiler to trace."""

    def write(
        self, changed: Sequence[Tensor], learning_rate: Tensor, minibatch: Samples
    ) -> tuple[Tensor, Tensor]:
        """Takes one step, or none if loss or gradient are not finite, in place on `changed`.

        Args:
            changed: As `Step.changed` lists them.
            learning_rate: Of this step, a scalar; an argument, so that it can be any.
            minibatch: The inputs of the loss.

        Returns:
            The metrics [M], and the gradient's norm before clipping, above zero; or zero if the
            step was not taken.
        """
        ...


class Step(Protocol):
    """What is done on each minibatch."""

    @property
    def learning_rate(self) -> float: ...

    def changed(self, state: Trainable) -> list[Tensor]:
        """The tensors that it changes: parameters [P], Adam's moments, [P] each, the number of
        steps, a scalar, and if it moves a target network, the parameters of that."""
        ...

    def take(self, state: Trainable, minibatch: Samples, rate: float) -> Tensor:
        """Takes one step in eager mode; see `StepTaker`. Returns the metrics [M]."""
        ...

    def functional(self, state: Trainable) -> FunctionalStep:
        """The same without side effects; of `state` only structure and names are used."""
        ...

    def with_losses(self, change: Callable[[Loss], Loss]) -> Step:
        """The same step with other losses."""
        ...


@dataclass(frozen=True, kw_only=True)
class GradientStep:
    """One step of Adam down a loss, with the gradient's norm clipped.

    Attributes:
        loss: The loss to minimise.
        learning_rate, epsilon: Of Adam.
        max_gradient_norm: Longer gradients are scaled down to it; None: none are.
        apart: Modules, in order all of the network, whose gradients are scaled down each by its own
            norm; none: all parameters have one norm.
    """

    loss: Loss
    learning_rate: float
    epsilon: float
    max_gradient_norm: float | None
    apart: tuple[str, ...] = ()

    def changed(self, state: Trainable) -> list[Tensor]:
        """See `Step`."""
        return [state.weights.vector.detach(), *state.optimizer.named_tensors().values()]

    def take(self, state: Trainable, minibatch: Samples, rate: float) -> Tensor:
        """See `Step`."""
        state.weights.gradient.zero_()
        loss, metrics = self.loss(state.network, minibatch)
        loss.backward()  # type: ignore[no-untyped-call]
        # A loss can be infinite although its gradient is not; this way all learners that share the
        # gradient see that of each.
        state.weights.gradient[:1].add_(loss.detach(), alpha=0)
        adam_step(
            state.weights,
            state.optimizer,
            learning_rate=self.learning_rate * rate,
            epsilon=self.epsilon,
            norm=self._scale_down(state),
        )
        return metrics

    def _scale_down(self, state: Trainable) -> Tensor:
        """Scales the gradient down, in place. Returns the norm of all before."""
        gradient = state.weights.complete_gradient()
        if not self.apart:
            return scale_down(gradient, self.max_gradient_norm)
        parts = [gradient[span_of(state.network, module)] for module in self.apart]
        norms = [scale_down(part, self.max_gradient_norm) for part in parts]
        norm: Tensor = torch.linalg.vector_norm(torch.stack(norms))
        return norm

    def functional(self, state: Trainable) -> FunctionalGradientStep:
        """See `Step`."""
        return FunctionalGradientStep(state.network, self)

    def with_losses(self, change: Callable[[Loss], Loss]) -> GradientStep:
        """See `Step`."""
        return replace(self, loss=change(self.loss))


class StepTaker(Protocol):
    """Takes gradient steps one after the other."""

    def take(
        self,
        state: Trainable,
        step: Step,
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
        step: Step,
        samples: Samples,
        order: Order | None = None,
        rate: float = 1.0,
    ) -> Tensor:
        """See `StepTaker`."""
        if isinstance(order, Tensor):  # to a device in one copy instead of one for each minibatch
            order = order.to(state.weights.vector.device)
        minibatches = [samples] if order is None else (gather(samples, rows) for rows in order)
        return torch.stack([step.take(state, part, rate) for part in minibatches])


def gather(samples: Samples, rows: Tensor) -> dict[str, Tensor]:
    """The minibatch of these rows, int64 [N]."""
    return {
        name: values.index_select(0, rows.to(values.device)) for name, values in samples.items()
    }


class FunctionalGradientStep:
    """A `GradientStep` without side effects.

    Args:
        network: Gives structure and names; its values are not used.
        step: What to do.
    """

    def __init__(self, network: nn.Module, step: GradientStep) -> None:
        self._step = step
        self._bound = BoundLoss(step.loss, network)
        self._shapes = [(name, p.shape) for name, p in self._bound.named_parameters()]
        self._learns = {name: p.requires_grad for name, p in self._bound.named_parameters()}
        self._apart = [span_of(network, module) for module in step.apart]

    def write(
        self, changed: Sequence[Tensor], learning_rate: Tensor, minibatch: Samples
    ) -> tuple[Tensor, Tensor]:
        """See `FunctionalStep`."""
        vector, mean, variance, num_steps = changed
        *new, metrics, norm = self.step(vector, mean, variance, num_steps, learning_rate, minibatch)
        for old, values in zip(changed, new, strict=True):
            old.copy_(values)
        return metrics, norm

    def step(
        self,
        vector: Tensor,
        mean: Tensor,
        variance: Tensor,
        num_steps: Tensor,
        learning_rate: Tensor,
        minibatch: Samples,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """The new values of what `write` changes, then its results."""
        before = (vector, mean, variance, num_steps)
        gradient, norm, is_sound, metrics = self._gradient(vector, minibatch)
        num_steps = num_steps + 1
        moved = adam_moved(
            (vector, mean, variance), gradient, num_steps, learning_rate, self._step.epsilon
        )
        vector, mean, variance, num_steps = (
            torch.where(is_sound, new, old)
            for new, old in zip((*moved, num_steps), before, strict=True)
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
        gradients, value, metrics = gradients_of(self._bound, pieces, learning, minibatch)
        gradients |= {
            name: torch.zeros_like(pieces[name]) for name in pieces if name not in learning
        }
        gradient = torch.cat([gradients[name].reshape(-1) for name, _ in self._shapes])
        norm = torch.linalg.vector_norm(gradient)
        is_sound = torch.isfinite(norm) & torch.isfinite(value)
        return self._clipped(gradient, norm), norm, is_sound, metrics

    def _clipped(self, gradient: Tensor, norm: Tensor) -> Tensor:
        limit = self._step.max_gradient_norm
        if not self._apart:
            return clipped(gradient, norm, limit)
        parts = [gradient[span] for span in self._apart]
        return torch.cat([clipped(part, torch.linalg.vector_norm(part), limit) for part in parts])


def gradients_of(
    bound: BoundLoss, pieces: Mapping[str, Tensor], learning: dict[str, Tensor], minibatch: Samples
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """The gradients of a loss by parameter, its value, and its metrics.

    Args:
        bound: The loss.
        pieces: All parameters.
        learning: Those that learn.
        minibatch: The inputs of the loss.
    """

    leaves = {name: piece.detach().requires_grad_() for name, piece in learning.items()}
    with torch.enable_grad():
        value, metrics = functional_call(bound, {**pieces, **leaves}, (minibatch,))
        # `torch.func.grad` computes the same, but reads PyTorch's compilers before.
        found = torch.autograd.grad(
            value, list(leaves.values()), create_graph=True, materialize_grads=True
        )
    gradients = {name: each.detach() for name, each in zip(leaves, found, strict=True)}
    return gradients, value.detach(), metrics.detach()


def clipped(gradient: Tensor, norm: Tensor, max_norm: float | None) -> Tensor:
    """A gradient [P] with this norm, scaled down to `max_norm` if there is one."""
    if max_norm is None:
        return gradient
    return gradient * (max_norm / (norm + 1e-6)).clamp(max=1.0)


def adam_moved(
    before: tuple[Tensor, Tensor, Tensor],
    gradient: Tensor,
    num_steps: Tensor,
    learning_rate: Tensor,
    epsilon: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Parameters [P] and both moments [P] after a step of Adam; see `optimizer`.

    Args:
        before: The same before it.
        gradient: [P].
        num_steps: Including this one.
        learning_rate, epsilon: Of Adam.
    """
    vector = before[0]
    mean, variance = moments_moved(before[1:], gradient)
    step_size = computed_once(learning_rate / (1 - BETA_1**num_steps))
    deviation = variance.sqrt() / computed_once((1 - BETA_2**num_steps).sqrt()) + epsilon
    return vector - step_size * (mean / deviation), mean, variance


def moments_moved(before: tuple[Tensor, Tensor], gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Adam's mean and variance [P] after a step, given both before it, and the gradient [P]."""
    mean, variance = before
    return (
        torch.lerp(mean, gradient, 1 - BETA_1),
        BETA_2 * variance + (1 - BETA_2) * gradient.square(),
    )


def computed_once(value: Tensor) -> Tensor:
    """The same scalar, computed once in a compiled step.

    The compiler repeats an expression of scalars for every few entries of a vector that it is used
    for, and a power costs more than all else that Adam does to them. A reduction is not repeated.
    """
    return value.expand(NOT_UNROLLED).amax()


NOT_UNROLLED = 64
"""Entries of a reduction that the compiler does not replace by their expression."""


def pieces_of(vector: Tensor, shapes: Sequence[tuple[str, torch.Size]]) -> dict[str, Tensor]:
    """Views of a flat vector [P], one for each parameter, in order."""
    pieces, position = {}, 0
    for name, shape in shapes:
        pieces[name] = vector[position : position + shape.numel()].view(shape)
        position += shape.numel()
    return pieces


class BoundLoss(nn.Module):
    """A loss as a module, so that its parameters can be exchanged.

    Args:
        loss: Called with the network, a minibatch and, if there is one, the target network.
        network, target: Modules of these names.
    """

    def __init__(self, loss: Loss, network: nn.Module, target: nn.Module | None = None) -> None:
        super().__init__()
        self.network = network
        self.target = target
        self._loss = loss

    def forward(self, minibatch: Samples) -> tuple[Tensor, Tensor]:
        if self.target is None:
            return self._loss(self.network, minibatch)
        return self._loss(self.network, minibatch, self.target)
