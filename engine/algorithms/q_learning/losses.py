"""Losses of TD errors of action values, of transitions and of sequences."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from engine.algorithms.base import Batch
from engine.algorithms.replicas import ReplicaGroup, part_of_whole

LOSSES: Mapping[str, Callable[..., Tensor]] = {
    "huber": nn.functional.smooth_l1_loss,
    "squared": nn.functional.mse_loss,
}
METRICS = ("loss", "td_error", "q_mean")


def transition_loss(
    q: Tensor, value: Tensor, minibatch: Batch, kind: str, replicas: ReplicaGroup
) -> tuple[Tensor, Tensor]:
    """Loss of the TD error delta, weighted, averaged over the samples.

        delta = r + discount v(s_t) - q(s_tm1, a_tm1)

    Args:
        q: Of the actions that were taken, with gradients, [N].
        value: v, of the next states, without gradients, [N].
        minibatch: Samples, [N, ...]; `discount` is 0 after termination.
        kind: Name of the loss.
        replicas: The learners with the other shares of these samples.

    Returns:
        The loss, a scalar; the metrics of `METRICS` and |delta|, [3 + N], detached. Loss and
        metrics are the share of these samples.
    """
    with torch.no_grad():
        target = torch.addcmul(minibatch["reward"], minibatch["discount"], value)
    assert q.shape == target.shape, (q.shape, target.shape)
    losses = LOSSES[kind](q, target, reduction="none")
    loss = (minibatch["weight"] * losses).mean()
    with torch.no_grad():
        error = (target - q).abs()
        means = torch.stack((loss, error.mean(), q.mean()))
    return _share_of_loss(loss, means, error, replicas)


def sequence_loss(
    q: Tensor, value: Tensor, minibatch: Batch, kind: str, mix: float, replicas: ReplicaGroup
) -> tuple[Tensor, Tensor]:
    """Loss of the TD errors, weighted, averaged over all steps of all sequences.

        delta_t = r + discount v(s_{t+k}) - q(s_t, a_t)

    where r, discount and k, the span, are those of the n-step transition from step t. Steps that
    only reset their environment count as 0.

    Args:
        q: Of the actions that were taken, with gradients, [T, N].
        value: v, of s_0 to s_T, without gradients, [T + 1, N].
        minibatch: Sequences, [N, ...].
        kind: Name of the loss.
        mix: Eta of the errors.
        replicas: The learners with the other shares of these samples.

    Returns:
        As of `transition_loss`, with one error for each sequence, eta max |delta| + (1 - eta)
        mean |delta|.
    """
    span = minibatch["span"].t()
    with torch.no_grad():
        step = torch.arange(len(span), device=span.device).unsqueeze(-1)
        target = torch.addcmul(
            minibatch["reward"].t(), minibatch["discount"].t(), value.gather(0, step + span)
        )
        is_step = (span > 0).to(target.dtype)
    assert q.shape == target.shape, (q.shape, target.shape)
    losses = is_step * LOSSES[kind](q, target, reduction="none")
    loss = (minibatch["weight"] * losses.mean(0)).mean()
    with torch.no_grad():
        error, num_steps = is_step * (target - q).abs(), is_step.sum(0).clamp(min=1.0)
        errors = mix * error.amax(0) + (1 - mix) * error.sum(0) / num_steps
        all_steps = num_steps.sum()
        means = torch.stack((loss, error.sum() / all_steps, (is_step * q).sum() / all_steps))
    return _share_of_loss(loss, means, errors, replicas)


def _share_of_loss(
    loss: Tensor, means: Tensor, errors: Tensor, replicas: ReplicaGroup
) -> tuple[Tensor, Tensor]:
    """What a loss returns: its value, and metrics with the errors; the share of these samples.

    Args:
        loss: Mean over these samples.
        means: The metrics of `METRICS`, means too.
        errors: |delta| of each sample, [N].
        replicas: The learners with the other shares.
    """
    if replicas.count > 1:
        part = part_of_whole(replicas)
        loss, means = loss * part, means * part
    return loss, torch.cat((means, errors)).detach()
