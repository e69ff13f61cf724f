"""Going through one batch several times, in random minibatches, as PPO does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from engine.algorithms.base import LearnerState
from engine.algorithms.gradient import Order, Samples, Step
from engine.algorithms.replicas import minibatch_rows, shared_step
from engine.algorithms.schedules import factor


class Epochs(Protocol):
    """Hyperparameters of an update; `PpoConfig` describes them."""

    @property
    def learning_rate(self) -> float: ...

    @property
    def learning_rate_final(self) -> float | None: ...

    @property
    def minibatch_steps(self) -> int: ...

    @property
    def num_epochs(self) -> int: ...

    @property
    def target_kl(self) -> float | None: ...


def rows_of_epochs(
    config: Epochs, shape: Sequence[int], state: LearnerState, has_memory: bool
) -> Order:
    """The rows of all minibatches of all epochs.

    Args:
        config: How many epochs and how large minibatches.
        shape: Of this learner's share of a batch, (T, columns).
        state: Whose generator draws them.
        has_memory: Whether a row is the whole sequence of one environment.
    """
    num_steps, num_columns = shape
    length = num_steps if has_memory else 1
    return minibatch_rows(
        (num_steps // length, num_columns),
        config.num_epochs,
        config.minibatch_steps // length,
        state.generator,
        state.replicas,
    )


def take_epochs(
    config: Epochs,
    state: LearnerState,
    step: Step,
    samples: Samples,
    order: Order,
    divergences: Sequence[int],
) -> Tensor:
    """Takes the steps of all epochs, or of fewer with `target_kl`.

    Args:
        config: See `Epochs`.
        state: Changed by the steps.
        step: What to do on each minibatch.
        samples: By name; rows of `order`.
        order: From `rows_of_epochs`.
        divergences: Which of the step's metrics are compared with `target_kl`.

    Returns:
        This learner's share of the metrics of each step, [steps, metrics].
    """
    shared = shared_step(step, state.replicas)
    rate = factor(config.learning_rate, config.learning_rate_final, state.progress)
    if config.target_kl is None:
        told = state.steps.take(state, shared, samples, order, rate)
        state.num_updates += len(told)
        return told
    parts, per_epoch = [], len(order) // config.num_epochs
    for first in range(0, len(order), per_epoch):
        epoch = order[first : first + per_epoch]
        parts.append(state.steps.take(state, shared, samples, epoch, rate))
        of_last = state.replicas.sum(parts[-1][-1])
        if max(float(of_last[at]) for at in divergences) > config.target_kl:
            break
    told = torch.cat(parts)
    state.num_updates += len(told)
    return told
