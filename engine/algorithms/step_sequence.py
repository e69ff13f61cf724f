"""Several losses, each with parameters of its own, and a target network: one optimiser step.

    for each part, in order:   g     = gradient of its loss, by what it moves
                               theta = Adam(theta, g)
    then:                      theta' <- theta' + rate (theta - theta')

A part sees what those before it have moved; all else is constant for it. What several parts
move, as two updates of a critic before one of the policy, has taken a step of Adam in each of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from engine.algorithms.gradient import (
    BoundLoss,
    Loss,
    Samples,
    Trainable,
    adam_moved,
    clipped,
    computed_once,
    gradients_of,
    moments_moved,
    pieces_of,
)
from engine.algorithms.optimizer import move, scale_down
from engine.layers.flat import LEAST_NORM, joined, spans_of


@dataclass(frozen=True, kw_only=True)
class Part:
    """One loss of a sequence.

    Attributes:
        loss: (network, minibatch, target network) -> (scalar loss, metrics [M] detached from it).
        moves: The modules of the network whose parameters it moves; they follow each other.
    """

    loss: Loss
    moves: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class StepSequence:
    """Steps of Adam down several losses in turn; see above. The metrics of all follow each other.

    Attributes:
        parts: In their order. Two of them move the same parameters, or none of the same.
        learning_rate, epsilon: Of Adam.
        max_gradient_norm: Longer gradients of a part are scaled down to it; None: none are.
        target_update_rate: How far the target network moves to the network.
    """

    parts: tuple[Part, ...]
    learning_rate: float
    epsilon: float
    max_gradient_norm: float | None
    target_update_rate: float

    def changed(self, state: Trainable) -> list[Tensor]:
        """See `Step`."""
        moments = state.optimizer.named_tensors().values()
        assert state.target is not None
        return [state.weights.vector.detach(), *moments, state.target.weights.vector.detach()]

    def take(self, state: Trainable, minibatch: Samples, rate: float) -> Tensor:
        """See `Step`."""
        changed = self.changed(state)
        vector, _, _, num_steps, target = changed
        before = [tensor.clone() for tensor in changed]
        plan = plan_of(self, state)
        taken = [self._take_part(part, state, minibatch, rate) for part in plan]
        norm = torch.linalg.vector_norm(torch.stack([norm for norm, _ in taken]))
        num_steps.add_(1.0)
        for part in plan:
            if part.is_last and part.of_target is not None:
                target[part.of_target].lerp_(vector[part.span], self.target_update_rate)
        is_sound = torch.isfinite(norm)
        for tensor, old in zip(changed, before, strict=True):
            tensor.copy_(torch.where(is_sound, tensor, old))
        state.weights.steps.note(norm + LEAST_NORM, self.learning_rate * rate)
        return torch.cat([metrics for _, metrics in taken])

    def _take_part(
        self, part: PlannedPart, state: Trainable, minibatch: Samples, rate: float
    ) -> tuple[Tensor, Tensor]:
        """Moves what one part moves. Returns the norm of its gradient, and its metrics."""
        assert state.target is not None
        loss, metrics = part.loss(state.network, minibatch, state.target.network)
        learning = [p for p in part.parameters(state.network) if p.requires_grad]
        gradients = torch.autograd.grad(loss, learning, allow_unused=True)
        state.weights.gradient.zero_()
        for parameter, gradient in zip(learning, gradients, strict=True):
            if gradient is not None:
                assert parameter.grad is not None
                parameter.grad.copy_(gradient)
        own = state.weights.gradient[part.span]
        own[:1].add_(loss.detach(), alpha=0)  # as in a `GradientStep`
        state.weights.complete_gradient()
        norm = scale_down(own, self.max_gradient_norm)
        optimizer = state.optimizer
        moments = optimizer.part(part.span, part.steps_before(optimizer.num_steps))
        parameters, learning_rate = state.weights.vector.detach()[part.span], self.learning_rate
        move(parameters, own, moments, norm, learning_rate * rate, self.epsilon)
        state.weights.spend_gradient()
        return norm, metrics

    def functional(self, state: Trainable) -> FunctionalSequence:
        """See `Step`."""
        return FunctionalSequence(self, state)

    def with_losses(self, change: Callable[[Loss], Loss]) -> StepSequence:
        """See `Step`."""
        return replace(
            self, parts=tuple(replace(part, loss=change(part.loss)) for part in self.parts)
        )


@dataclass(frozen=True)
class PlannedPart:
    """A part, with the places of what it moves in the flat parameters.

    Attributes:
        loss: See `Part`.
        names: Of the parameters that it moves.
        span: Of these in the parameters of the network.
        of_target: In those of the target network; None if it has none of them.
        number, count: The how manieth part it is, from 0, of those that move the same.
    """

    loss: Loss
    names: tuple[str, ...]
    span: slice
    of_target: slice | None
    number: int
    count: int

    @property
    def is_last(self) -> bool:
        return self.number == self.count - 1

    def parameters(self, network: nn.Module) -> list[nn.Parameter]:
        """The parameters that it moves."""
        parameters = dict(network.named_parameters())
        return [parameters[name] for name in self.names]

    def steps_before(self, num_steps: Tensor) -> Tensor:
        """How many steps these parameters have taken, if the whole sequence has `num_steps`."""
        return num_steps * self.count + self.number


def plan_of(sequence: StepSequence, state: Trainable) -> list[PlannedPart]:
    """The parts of a sequence for these networks.

    Raises:
        ValueError: What a part moves does not lie together in the flat parameters, of which those
            of the target must be a part.
    """
    assert state.target is not None
    spans = spans_of(state.network)
    of_target = spans_of(state.target.network)
    counts, seen = Counter(part.moves for part in sequence.parts), Counter[tuple[str, ...]]()
    planned = []
    for part in sequence.parts:
        names = tuple(
            name for name in spans if any(name.startswith(f"{module}.") for module in part.moves)
        )
        span = joined([spans[name] for name in names])
        follows = [of_target[name] for name in names if name in of_target]
        planned.append(
            PlannedPart(
                part.loss,
                names,
                span,
                joined(follows) if len(follows) == len(names) else None,
                seen[part.moves],
                counts[part.moves],
            )
        )
        seen[part.moves] += 1
    return planned


class FunctionalSequence:
    """A `StepSequence` without side effects; see `FunctionalStep`.

    Args:
        sequence: What to do.
        state: Gives structure and names; its values are not used.
    """

    def __init__(self, sequence: StepSequence, state: Trainable) -> None:
        assert state.target is not None
        self._sequence = sequence
        self._plan = plan_of(sequence, state)
        self._network, self._target = state.network, state.target.network
        self._shapes = _shapes_of("network", self._network)
        self._target_shapes = _shapes_of("target", self._target)
        parameters = self._network.named_parameters()
        self._learning = {f"network.{name}" for name, p in parameters if p.requires_grad}

    def write(
        self, changed: Sequence[Tensor], learning_rate: Tensor, minibatch: Samples
    ) -> tuple[Tensor, Tensor]:
        """See `FunctionalStep`."""
        vector, mean, variance, num_steps, target = changed
        pieces = _pieces_of(vector, self._shapes) | _pieces_of(target, self._target_shapes)
        moved: dict[tuple[str, ...], tuple[Tensor, Tensor, Tensor]] = {}
        moved_by: dict[tuple[str, ...], tuple[tuple[Tensor, Tensor], Tensor]] = {}
        norms, told, values = [], [], []
        for part in self._plan:
            gradient, value, metrics = self._gradient(part, pieces, minibatch)
            norm = torch.linalg.vector_norm(gradient)
            at_first = vector[part.span], mean[part.span], variance[part.span]
            before = moved.get(part.names, at_first)
            gradient = clipped(gradient, norm, self._sequence.max_gradient_norm)
            moved[part.names] = adam_moved(
                before,
                gradient,
                part.steps_before(num_steps) + 1,
                learning_rate,
                self._sequence.epsilon,
            )
            moved_by[part.names] = before[1:], gradient
            pieces |= _pieces_of(moved[part.names][0], self._shapes_in(part))
            norms.append(norm)
            told.append(metrics)
            values.append(value)
        norm = torch.linalg.vector_norm(torch.stack(norms))
        is_finite = torch.isfinite(norm) & torch.isfinite(torch.stack(values)).all()
        is_sound = computed_once(is_finite.to(norm.dtype)) > 0
        last = [part for part in self._plan if part.is_last]
        # Moments anew, which costs less than to write them to memory above and to read them here.
        new = [(moved[part.names][0], *moments_moved(*moved_by[part.names])) for part in last]
        for tensor, of_parts in zip((vector, mean, variance), zip(*new, strict=True), strict=True):
            spans = [part.span for part in last]
            _replace(tensor, list(zip(spans, of_parts, strict=True)), is_sound)
        followed = [
            (part.of_target, self._followed(target[part.of_target], moved[part.names][0]))
            for part in last
            if part.of_target is not None
        ]
        _replace(target, followed, is_sound)
        num_steps.copy_(torch.where(is_sound, num_steps + 1, num_steps))
        taken = torch.where(is_sound, norm + LEAST_NORM, torch.zeros_like(norm))
        return torch.cat(told), taken

    def _followed(self, old: Tensor, moved: Tensor) -> Tensor:
        """What a part of the target network is after its network has moved."""
        return torch.lerp(old, moved, self._sequence.target_update_rate)

    def _shapes_in(self, part: PlannedPart) -> dict[str, torch.Size]:
        """The shapes of what a part moves."""
        names = [f"network.{name}" for name in part.names]
        return {name: self._shapes[name] for name in names}

    def _gradient(
        self, part: PlannedPart, pieces: dict[str, Tensor], minibatch: Samples
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The gradient of what a part moves, flat, zero where nothing learns; the value of its
        loss, and its metrics."""
        names = list(self._shapes_in(part))
        learning = {name: pieces[name] for name in names if name in self._learning}
        bound = BoundLoss(part.loss, self._network, self._target)
        gradients, value, metrics = gradients_of(bound, pieces, learning, minibatch)
        gradients |= {
            name: torch.zeros_like(pieces[name]) for name in names if name not in learning
        }
        return torch.cat([gradients[name].reshape(-1) for name in names]), value, metrics


def _replace(tensor: Tensor, parts: Sequence[tuple[slice, Tensor]], is_sound: Tensor) -> None:
    """Writes new values of some spans of a vector if all are finite.

    As a whole: a compiler makes a loop of each piece, but of a write to a span one of all entries,
    which asks each of them where it is.
    """
    pieces, end = list[Tensor](), 0
    for span, new in sorted(parts, key=lambda part: part[0].start):
        pieces += [tensor[end : span.start], torch.where(is_sound, new, tensor[span])]
        end = span.stop
    tensor.copy_(torch.cat([*pieces, tensor[end:]]))


def _shapes_of(module: str, network: nn.Module) -> dict[str, torch.Size]:
    """The shapes of all parameters, by the names that they have in a loss."""
    return {f"{module}.{name}": p.shape for name, p in network.named_parameters()}


def _pieces_of(vector: Tensor, shapes: dict[str, torch.Size]) -> dict[str, Tensor]:
    return pieces_of(vector, list(shapes.items()))
