"""Several learners that make one update together, each on its share of the batch.

A batch [T, B] is split along its environment axis: each learner holds adjacent columns, in the
proportions of `ReplicaGroup.shares`, which can differ. Samples from replay are split in the same
way, along the axis of samples. For the update to be that of one learner on the whole batch,

1. every sum over samples (number of valid steps, mean and variance of advantages) is a sum over all
   shares, so each learner's loss is its share of the whole loss;
2. gradients are added up, not averaged, before they are clipped (`FlatParameters.complete`);
3. all learners draw the same permutation of the whole batch, from generators with equal seeds, and
   of each minibatch take the samples that they hold.

Then only the order of floating-point additions differs. With one learner this costs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from engine.algorithms.gradient import Order, Step


class ReplicaGroup(Protocol):
    """The learners of one update."""

    @property
    def rank(self) -> int: ...

    @property
    def count(self) -> int: ...

    @property
    def shares(self) -> tuple[int, ...]:
        """Relative size of each learner's share of a batch: (1, 1) is half each."""
        ...

    def sum(self, values: Tensor) -> Tensor:
        """The element-wise sum of `values` over all learners, of the same shape and dtype."""
        ...


@dataclass(frozen=True)
class SingleReplica:
    """One learner that holds the whole batch."""

    rank: int = 0
    count: int = 1

    @property
    def shares(self) -> tuple[int, ...]:
        return (1,) * self.count

    def sum(self, values: Tensor) -> Tensor:
        return values


SINGLE_REPLICA = SingleReplica()


def part_of_whole(replicas: ReplicaGroup) -> float:
    """Fraction of every batch that this learner holds: the weight of a mean over its share."""
    return replicas.shares[replicas.rank] / sum(replicas.shares)


def columns_of(replicas: ReplicaGroup, num_columns: int) -> tuple[int, int]:
    """First column of this learner's share of a whole batch, and the number of all columns.

    Args:
        replicas: Who holds the other shares.
        num_columns: Of this learner's share; a multiple of its entry in `shares`.
    """
    unit = num_columns // replicas.shares[replicas.rank]
    return unit * sum(replicas.shares[: replicas.rank]), unit * sum(replicas.shares)


def shared_step(step: Step, replicas: ReplicaGroup) -> Step:
    """The same step, with losses that sum over all learners if there are several.

    The loss of an algorithm that shares batches takes `replicas` as a keyword.
    """
    if replicas.count == 1:
        return step
    return step.with_losses(lambda loss: partial(loss, replicas=replicas))


def minibatch_rows(
    shape: tuple[int, ...],
    num_epochs: int,
    minibatch_size: int,
    generator: torch.Generator,
    replicas: ReplicaGroup,
) -> Order:
    """Random minibatches of a batch whose time and environments have become one axis.

    Args:
        shape: Of this learner's share, (T, columns).
        num_epochs: How often to go through all of it.
        minibatch_size: Samples of a minibatch, over all learners.
        generator: In the same state for all learners; it advances equally for all.
        replicas: Who holds the other shares.

    Returns:
        For each minibatch the rows of this learner's share that are in it.
    """
    num_steps, num_columns = shape
    first, num_all = columns_of(replicas, num_columns)
    total = num_steps * num_all
    epochs = [torch.randperm(total, generator=generator) for _ in range(num_epochs)]
    order = torch.stack(epochs).view(-1, minibatch_size)
    if replicas.count == 1:
        return order
    row, column = order // num_all, order % num_all - first
    is_held = (column >= 0) & (column < num_columns)
    local = row * num_columns + column
    return [rows[held] for rows, held in zip(local, is_held, strict=True)]


def normalized(values: Tensor, weight: Tensor, replicas: ReplicaGroup) -> Tensor:
    """Values with zero mean and unit variance under `weight`, which sums to 1 over all learners;
    both float32 [N]."""
    centred = values - replicas.sum(weight @ values)
    return centred / (replicas.sum(weight @ centred.square()).sqrt() + 1e-8)
