"""Distributions over actions: only what an actor and a loss need, without torch.distributions.

An action is a function of a state and of noise drawn beforehand, so acting is a pure function and
an actor's actions are reproducible.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad, softplus

from engine.spaces.action_parts import ActionParts

LOG_2_PI = math.log(2 * math.pi)
LOG_STD_RANGE = (-20.0, 2.0)
"""Of a squashed Gaussian, as in the code of its authors."""
MASKED_LOGIT = -1e8
"""Of a masked action, where the largest valid logit is 0: finite, so nothing becomes NaN, and its
probability is exactly 0."""


class Distribution(Protocol):
    """pi(. | s) for N states at once."""

    def sample(self, noise: Tensor) -> Tensor:
        """One action per state, [N, ...], from noise of `draw_noise` [N, outputs of the policy]:
        int64 or float32."""
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
        logits: Unnormalised log-probabilities, [N, A]; also [N, K, A], for [N, K] actions.
        mask: Which actions are valid, bool like `logits`. The others have probability 0, no
            gradient reaches their logits, and no noise makes them be sampled. At least one is
            valid, or action 0 is taken.
    """

    def __init__(self, logits: Tensor, mask: Tensor | None = None) -> None:
        self._mask = mask
        if mask is not None:
            # Shifted, so that a masked one is far below the best valid one, however low that is.
            best = logits.detach().masked_fill(~mask, -math.inf).amax(dim=-1, keepdim=True)
            logits = (logits - best).where(mask, MASKED_LOGIT)
        self._log_probs = torch.log_softmax(logits, dim=-1)

    def sample(self, noise: Tensor) -> Tensor:
        # argmax(p / Exponential(1)) is a sample from p; cheaper than torch.multinomial.
        scores = self._log_probs.exp() / noise
        if self._mask is not None:  # below 0 / noise, which a valid action can have
            scores = scores.where(self._mask, -1.0)
        return scores.argmax(dim=-1)

    @staticmethod
    def draw(generator: torch.Generator, shape: Sequence[int]) -> Tensor:
        """Exponential noise with mean 1, float32 `shape`."""
        return torch.empty(*shape, device=generator.device).exponential_(generator=generator)

    def mode(self) -> Tensor:
        return self._log_probs.argmax(dim=-1)

    def log_prob(self, action: Tensor) -> Tensor:
        assert action.shape == self._log_probs.shape[:-1], action.shape
        return self._log_probs.gather(-1, action.unsqueeze(-1)).squeeze(-1)

    def entropy(self) -> Tensor:
        return -(self._log_probs.exp() * self._log_probs).sum(-1)


class MultiCategorical:
    """Several discrete actions at once, each counted from 0 and independent of the others.

    All are one softmax over [N, K, largest of nvec]. Entries are padded by slices instead of a
    gather, since its index would be a tensor that a compiled function has to capture.

    Args:
        logits: Of all entries, one after the other, [N, sum of nvec].
        nvec: Number of actions of each entry, K in all.
        mask: Which actions are valid, bool [N, sum of nvec]; see `Categorical`.
    """

    def __init__(self, logits: Tensor, nvec: Sequence[int], mask: Tensor | None = None) -> None:
        assert logits.shape[1:] == (sum(nvec),), (logits.shape, nvec)
        self._nvec = nvec
        entries = _apart(logits, nvec, -math.inf)
        if mask is not None:
            mask = _apart(mask, nvec, False)
        elif len(set(nvec)) > 1:
            mask = entries != -math.inf
        self._entries = Categorical(entries, mask)

    def sample(self, noise: Tensor) -> Tensor:
        """Actions, int64 [N, K]."""
        return self._entries.sample(_apart(noise, self._nvec, 1.0))

    def mode(self) -> Tensor:
        return self._entries.mode()

    def log_prob(self, action: Tensor) -> Tensor:
        return self._entries.log_prob(action).sum(-1)

    def entropy(self) -> Tensor:
        return self._entries.entropy().sum(-1)


def _apart(values: Tensor, nvec: Sequence[int], padding: float) -> Tensor:
    """[N, sum of nvec] -> [N, K, largest of nvec]; a view if all entries have equally many."""
    longest, start, blocks = max(nvec), 0, []
    for n, run in groupby(nvec):
        count = len(list(run))
        block = values[:, start : start + count * n].view(values.shape[0], count, n)
        blocks.append(pad(block, (0, longest - n), value=padding) if n < longest else block)
        start += count * n
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=1)


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


class SquashedGaussian:
    """tanh of a Gaussian, independent in each dimension: actions within (-1, 1).

    With u = mean + std noise and a = tanh(u) (Haarnoja et al., 2018, appendix C),

        ln pi(a | s) = ln N(u; mean, std) - sum of ln(1 - tanh(u)^2)
        ln(1 - tanh(u)^2) = 2 (ln 2 - u - softplus(-2 u))

    of which the second form is exact also where tanh(u) is 1 in floating point.

    Args:
        outputs: Of the policy: mean and log_std of each entry, [N, 2 D]. log_std is clipped.
    """

    def __init__(self, outputs: Tensor) -> None:
        self._mean, log_std = outputs.chunk(2, dim=-1)
        self._log_std = log_std.clamp(*LOG_STD_RANGE)

    def sample(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Actions [N, D] from standard normal noise [N, D], and ln pi(a | s), [N]."""
        assert noise.shape == self._mean.shape, noise.shape
        u = torch.addcmul(self._mean, self._log_std.exp(), noise)
        of_gaussian = 0.5 * noise.square() + self._log_std + 0.5 * LOG_2_PI
        of_tanh = 2 * (math.log(2.0) - u - softplus(-2 * u))
        return torch.tanh(u), -(of_gaussian + of_tanh).sum(-1)

    def mode(self) -> Tensor:
        """tanh of the mean, [N, D]."""
        return torch.tanh(self._mean)


class Joint:
    """Discrete and continuous actions at once, independent of each other.

    Args:
        categorical: Of K entries.
        gaussian: Of D entries. Actions are [N, K + D], with the dtype of its mean.
        num_categorical: K.
        num_logits: Entries of noise for `categorical`; those for `gaussian` come after.
    """

    def __init__(
        self,
        categorical: MultiCategorical,
        gaussian: DiagonalGaussian,
        num_categorical: int,
        num_logits: int,
    ) -> None:
        self._categorical, self._gaussian = categorical, gaussian
        self._num_categorical, self._num_logits = num_categorical, num_logits

    def sample(self, noise: Tensor) -> Tensor:
        split = self._num_logits
        chosen = self._categorical.sample(noise[:, :split])
        return self._together(chosen, self._gaussian.sample(noise[:, split:]))

    def mode(self) -> Tensor:
        return self._together(self._categorical.mode(), self._gaussian.mode())

    def log_prob(self, action: Tensor) -> Tensor:
        split = self._num_categorical
        chosen, reals = action[:, :split].to(torch.int64), action[:, split:]
        return self._categorical.log_prob(chosen) + self._gaussian.log_prob(reals)

    def entropy(self) -> Tensor:
        return self._categorical.entropy() + self._gaussian.entropy()

    def _together(self, chosen: Tensor, reals: Tensor) -> Tensor:
        return torch.cat((chosen.to(reals.dtype), reals), dim=-1)


def make_distribution(
    parts: ActionParts, outputs: Tensor, log_std: Tensor | None = None, mask: Tensor | None = None
) -> Distribution:
    """The policy on an action space.

    Args:
        parts: Entries of the space.
        outputs: Logits of all categorical entries, then means of all reals,
            [N, parts.num_outputs].
        log_std: Of the reals, [D]; None if there are none.
        mask: Which categorical actions are valid, bool [N, parts.num_logits]; None: all.
    """
    if parts.is_scalar:
        return Categorical(outputs, mask)
    if not parts.num_reals:
        return MultiCategorical(outputs, parts.nvec, mask)
    assert log_std is not None
    if not parts.nvec:
        return DiagonalGaussian(outputs, log_std)
    split = parts.num_logits
    categorical = MultiCategorical(outputs[:, :split], parts.nvec, mask)
    gaussian = DiagonalGaussian(outputs[:, split:], log_std)
    return Joint(categorical, gaussian, len(parts.nvec), split)


def draw_noise(parts: ActionParts, generator: torch.Generator, shape: Sequence[int]) -> Tensor:
    """Noise for samples of the policy on an action space, float32 [*shape, parts.num_outputs]."""
    if not parts.num_reals:
        return Categorical.draw(generator, (*shape, parts.num_logits))
    reals = DiagonalGaussian.draw(generator, (*shape, parts.num_reals))
    if not parts.nvec:
        return reals
    return torch.cat((Categorical.draw(generator, (*shape, parts.num_logits)), reals), dim=-1)
