"""Corrections for samples that older policies collected, which algorithms offer as options.

    rho_i = pi(a_i | s_i) / mu(a_i | s_i)

is the importance ratio of a step: mu is the policy that acted, pi the learner's when it takes the
batch. V-trace and the decoupled loss of PPO use it for each step, the learning rate for the whole
batch; weights by lag need no ratio at all.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from engine.algorithms.gradient import Samples
from engine.algorithms.off_policy.ratios import MAX_LOG_RATIO
from engine.algorithms.replicas import ReplicaGroup
from engine.errors import ConfigError

PROXIMAL = "proximal_log_prob"
"""Among samples: ln pi(a_i | s_i)."""
LAG_WEIGHT = "lag_weight"
"""Among samples: 1 / (1 + lag) of each step."""
RATE_FACTOR = "rate_factor"
VERSION = "version"
"""In batches: behaviour versions."""


def lag_weights(batch: Samples, version: int) -> Tensor:
    """1 / (1 + lag) of each step of a batch of rollouts, float32 [T, B].

    As weights of a mean over the batch, they have the expectation of sampling with probabilities in
    this proportion.

    Args:
        batch: See `engine.algorithms.base.Batch`.
        version: `LearnerState.version`.
    """
    valid = batch["valid"]
    if VERSION not in batch:
        return torch.ones(valid.shape, device=valid.device)
    weight = 1 / (1 + (version - batch[VERSION]).to(torch.float32))
    return weight.to(valid.device).expand(valid.shape).contiguous()


def step_weights(valid: Tensor, minibatch: Samples, replicas: ReplicaGroup) -> Tensor:
    """Weights of a mean over the valid steps, which sum to 1 over all learners; of `valid`'s shape.

    Args:
        valid: 1 for a step that counts, else 0.
        minibatch: With `LAG_WEIGHT`, the mean is weighted by it.
        replicas: The learners with the other shares.
    """
    if LAG_WEIGHT not in minibatch:
        return valid / replicas.sum(valid.sum()).clamp(min=1.0)
    weight = valid * minibatch[LAG_WEIGHT]
    return weight / replicas.sum(weight.sum()).clamp(min=torch.finfo(weight.dtype).tiny)


def effective_share_of(samples: Samples, replicas: ReplicaGroup) -> float:
    """`effective_share` of samples with `PROXIMAL`, `log_prob` and `valid`."""
    return effective_share(samples[PROXIMAL] - samples["log_prob"], samples["valid"], replicas)


def effective_share(log_ratio: Tensor, valid: Tensor, replicas: ReplicaGroup) -> float:
    """The effective sample size of importance ratios, as a share of the N valid steps.

        ESS / N = (sum_i rho_i)^2 / (N sum_i rho_i^2)

    It is 1 if all ratios are equal, and 1 / N if one is all (Kong, 1992).

    Args:
        log_ratio: ln rho_i; any shape.
        valid: Of the same shape, whether the step counts.
        replicas: The learners with the other shares of the batch.
    """
    weight = valid.to(log_ratio.dtype)
    ratio = (weight * log_ratio).clamp(max=MAX_LOG_RATIO).exp()
    sums = torch.stack((weight.sum(), (weight * ratio).sum(), (weight * ratio.square()).sum()))
    count, total, squares = (float(value) for value in replicas.sum(sums))
    return total * total / (count * squares) if squares else 1.0


def scaled_rate(exponent: float, share: Callable[[], float]) -> dict[str, float]:
    """The factor of an update's learning rate, (ESS / N)^exponent, as the metric `rate_factor`.

    An exponent of 1/2 keeps the noise of Adam's steps at that of N samples (VCPO, Huang et al.,
    2026).

    Args:
        exponent: `ess_learning_rate`; 0 leaves the rate as it is, and no metric.
        share: Computes ESS / N.
    """
    return {RATE_FACTOR: share() ** exponent} if exponent else {}


def check_truncation(max_rho: float, max_c: float) -> None:
    """Raises ConfigError if the truncation levels of V-trace are in the wrong order."""
    if max_rho < max_c:
        raise ConfigError(
            f"max_rho {max_rho} is below max_c {max_c}",
            where="algorithm.max_rho",
            fix="V-trace needs max_rho >= max_c",
        )
