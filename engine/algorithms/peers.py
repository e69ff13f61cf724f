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

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


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


def shuffled_minibatches(
    samples: Mapping[str, Tensor],
    num_columns: int,
    minibatch_size: int,
    generator: torch.Generator,
    peers: Peers,
) -> Iterator[dict[str, Tensor]]:
    """Goes through a batch once in random order.

    Args:
        samples: This learner's share, time and environments as one axis [T * B / K, ...].
        num_columns: B / K, environments in this share.
        minibatch_size: Samples of a minibatch, over all learners.
        generator: In the same state for all learners; it advances equally for all.
        peers: Who holds the other shares.

    Yields:
        This learner's part of each minibatch.
    """
    num_samples = next(iter(samples.values())).shape[0]
    if peers.count == 1:
        order = torch.randperm(num_samples, generator=generator)
        shuffled = {name: values[order] for name, values in samples.items()}
        for start in range(0, num_samples, minibatch_size):
            stop = start + minibatch_size
            yield {name: values[start:stop] for name, values in shuffled.items()}
        return
    order = torch.randperm(num_samples * peers.count, generator=generator)
    row, column = order // (num_columns * peers.count), order % (num_columns * peers.count)
    is_held = column // num_columns == peers.rank
    local = row * num_columns + column % num_columns
    for start in range(0, order.numel(), minibatch_size):
        span = slice(start, start + minibatch_size)
        chosen = local[span][is_held[span]]
        yield {name: values[chosen] for name, values in samples.items()}
