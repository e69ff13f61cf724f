"""Adam (Kingma & Ba, 2015) on a flat parameter vector, its state in plain tensors.

The step is PyTorch's own fused kernel through its functional form: no optimiser object to build
(which would import a compiler), nothing hidden from a checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim.adam import adam

from engine.layers.flat import LEAST_NORM, FlatParameters

BETA_1, BETA_2 = 0.9, 0.999


@dataclass(frozen=True)
class AdamState:
    """Moments of all parameters, and the number of steps taken.

    Attributes:
        mean: First moment, [P].
        variance: Second moment, uncentred, [P].
        num_steps: Scalar float32 tensor, as the kernel requires.
    """

    mean: Tensor
    variance: Tensor
    num_steps: Tensor

    @classmethod
    def zeros(cls, weights: FlatParameters) -> AdamState:
        vector = weights.vector.detach()
        return cls(torch.zeros_like(vector), torch.zeros_like(vector), torch.zeros(()))

    def part(self, span: slice, num_steps: Tensor) -> AdamState:
        """Views of the moments of some parameters, which have taken `num_steps`."""
        return AdamState(self.mean[span], self.variance[span], num_steps)

    def named_tensors(self) -> dict[str, Tensor]:
        return {"mean": self.mean, "variance": self.variance, "num_steps": self.num_steps}


def adam_step(
    weights: FlatParameters,
    state: AdamState,
    *,
    learning_rate: float,
    epsilon: float,
    norm: Tensor | None = None,
) -> None:
    """Moves the parameters against their gradient, in place on `weights` and `state`.

    If the norm of the gradient is not finite, the step is skipped: parameters, moments and the step
    count do not change, and `weights.steps` counts it.

    Args:
        weights: Their gradient is complete.
        state: Moments.
        learning_rate, epsilon: Of Adam.
        norm: Norm of the gradient, a float32 scalar, from `clip_gradient_norm`; computed if None.
    """
    gradient = weights.complete_gradient()
    if norm is None:
        norm = torch.linalg.vector_norm(gradient)
    weights.steps.note(norm + LEAST_NORM, learning_rate)
    move(weights.vector.detach(), gradient, state, norm, learning_rate, epsilon)
    weights.spend_gradient()


def move(
    vector: Tensor,
    gradient: Tensor,
    state: AdamState,
    norm: Tensor,
    learning_rate: float,
    epsilon: float,
) -> None:
    """Moves parameters [P] against their gradient [P], in place on them and `state`, unless the
    norm is not finite."""
    adam(
        [vector],
        [gradient],
        [state.mean],
        [state.variance],
        [],
        [state.num_steps],
        fused=True,
        found_inf=(norm - norm).nan_to_num(nan=1.0),  # 1 unless it is finite
        amsgrad=False,
        maximize=False,
        beta1=BETA_1,
        beta2=BETA_2,
        lr=learning_rate,
        weight_decay=0.0,
        eps=epsilon,
    )


def clip_gradient_norm(weights: FlatParameters, max_norm: float) -> Tensor:
    """Scales the gradient down to `max_norm` if its Euclidean norm is larger.

    Returns:
        The norm before, a float32 scalar tensor.
    """
    return scale_down(weights.complete_gradient(), max_norm)


def scale_down(gradient: Tensor, max_norm: float | None) -> Tensor:
    """Scales a complete gradient [P] down, in place; see `clip_gradient_norm`. None: never."""
    norm: Tensor = torch.linalg.vector_norm(gradient)
    if max_norm is not None:
        gradient.mul_((max_norm / (norm + 1e-6)).clamp(max=1.0))
    return norm
