"""Distributions over actions: only what an actor and a loss need, without torch.distributions.

An action is a function of a state and of noise drawn beforehand, so acting is a pure function and
an actor's actions are reproducible.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

LOG_2_PI = math.log(2 * math.pi)


class Distribution(Protocol):
    """pi(. | s) for N states at once."""

    def sample(self, noise: Tensor) -> Tensor:
        """One action per state, [N, ...], from noise as returned by `draw`: int64 or float32."""
        ...

    @staticmethod
    def draw(generator: torch.Generator, shape: Sequence[int]) -> Tensor:
        """Noise for samples, float32 `shape`; its last axis is the policy's number of outputs."""
        ...

    def mode(self) -> Tensor:
        """The most likely action per state, [N, ...]."""
        ...

    def log_prob(self, action: Tensor) -> Tensor:
        """ln pi(a | s), float32 [N], of actions [N, ...]."""
        ...

    def entropy(self) -> Tensor:
        """In nats, float32 [N]."""
        ...


class Categorical:
    """Discrete actions, counted from 0.

    Args:
        logits: Unnormalised log-probabilities, [N, A].
    """

    def __init__(self, logits: Tensor) -> None:
        assert logits.ndim == 2, logits.shape
        self._log_probs = torch.log_softmax(logits, dim=-1)

    def sample(self, noise: Tensor) -> Tensor:
        # argmax(p / Exponential(1)) is a sample from p; cheaper than torch.multinomial.
        return (self._log_probs.exp() / noise).argmax(dim=-1)

    @staticmethod
    def draw(generator: torch.Generator, shape: Sequence[int]) -> Tensor:
        """Exponential noise with mean 1, float32 `shape`."""
        return torch.empty(*shape, device=generator.device).exponential_(generator=generator)

    def mode(self) -> Tensor:
        return self._log_probs.argmax(dim=-1)

    def log_prob(self, action: Tensor) -> Tensor:
        assert action.shape == self._log_probs.shape[:1], action.shape
        return self._log_probs.gather(-1, action.unsqueeze(-1)).squeeze(-1)

    def entropy(self) -> Tensor:
        return -(self._log_probs.exp() * self._log_probs).sum(-1)


class DiagonalGaussian:
    """Continuous actions, independent in each dimension.

    Args:
        mean: [N, D].
        log_std: Natural logarithm of the standard deviation, the same in all states, [D].
    """

    def __init__(self, mean: Tensor, log_std: Tensor) -> None:
        assert mean.ndim == 2, mean.shape
        assert log_std.shape == mean.shape[1:], log_std.shape
        self._mean = mean
        self._log_std = log_std

    def sample(self, noise: Tensor) -> Tensor:
        return torch.addcmul(self._mean, self._log_std.exp(), noise)

    @staticmethod
    def draw(generator: torch.Generator, shape: Sequence[int]) -> Tensor:
        """Standard normal noise, float32 `shape`."""
        return torch.randn(*shape, generator=generator, device=generator.device)

    def mode(self) -> Tensor:
        return self._mean

    def log_prob(self, action: Tensor) -> Tensor:
        assert action.shape == self._mean.shape, action.shape
        z = (action - self._mean) * (-self._log_std).exp()
        return -(0.5 * z.square() + self._log_std + 0.5 * LOG_2_PI).sum(-1)

    def entropy(self) -> Tensor:
        entropy = (self._log_std + 0.5 * (1 + LOG_2_PI)).sum()
        return entropy.expand(self._mean.shape[0])
