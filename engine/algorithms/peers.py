"""Several learners that take one update together, each on its share of the batch.

A batch [T, B] is split along its environment axis: learner k of K holds columns k*B/K to
(k+1)*B/K - 1. For the update to be that of one learner on the whole batch,

1. every sum over samples (number of valid steps, mean and variance of advantages) is a sum over all
   shares, so each learner's loss is its share of the whole loss;
2. gradients are added up, not averaged, before they are clipped (`FlatParameters.complete`);
3. all learners draw the same permutation of the whole batch, from generators with equal seeds, and
   of each minibatch take the samples that they hold.

Then only the order of floating-point additions differs. Alone, nothing of this costs anything.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from engine.algorithms.gradient import GradientStep, Order


class Peers(Protocol):
    """The learners of one update."""

    @property
    def rank(self) -> int: ...

    @property
    def count(self) -> int: ...

    def sum(self, values: Tensor) -> Tensor:
        """The element-wise sum over all learners, the same for each."""
        ...


@dataclass(frozen=True)
class Alone:
    """One learner that holds the whole batch."""

    rank: int = 0
    count: int = 1

    def sum(self, values: Tensor) -> Tensor:
        return values


ALONE = Alone()


def shared_step(step: GradientStep, peers: Peers) -> GradientStep:
    """The same step, with a loss that sums over all learners where there are several.

    The loss of an algorithm that shares batches takes `peers` as a third argument.
    """
    if peers.count == 1:
        return step
    loss: Callable[..., tuple[Tensor, Tensor]] = step.loss
    return replace(step, loss=partial(loss, peers=peers))


def minibatch_rows(
    shape: tuple[int, ...],
    num_epochs: int,
    minibatch_size: int,
    generator: torch.Generator,
    peers: Peers,
) -> Order:
    """Random minibatches of a batch whose time and environments have become one axis.

    Args:
        shape: Of this learner's share, (T, B / K).
        num_epochs: How often to go through all of it.
        minibatch_size: Samples of a minibatch, over all learners.
        generator: In the same state for all learners; it advances equally for all.
        peers: Who holds the other shares.

    Returns:
        For each minibatch the rows of this learner's share that are in it.
    """
    num_steps, num_columns = shape
    total = num_steps * num_columns * peers.count
    epochs = [torch.randperm(total, generator=generator) for _ in range(num_epochs)]
    order = torch.stack(epochs).view(-1, minibatch_size)
    if peers.count == 1:
        return order
    row, column = order // (num_columns * peers.count), order % (num_columns * peers.count)
    is_held = column // num_columns == peers.rank
    local = row * num_columns + column % num_columns
    return [rows[held] for rows, held in zip(local, is_held, strict=True)]
