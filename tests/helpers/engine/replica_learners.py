"""Learners that share every batch, as threads of one process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from engine.algorithms.base import Algorithm, Batch, LearnerState

LEARNERS = 2


def one_thread() -> Iterator[None]:
    """One thread, as in every role; the kernels of two learners would spin against each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class ThreadReplicas:
    """Learners as threads of one process; `sum` is a meeting."""

    def __init__(self, rank: int, shares: tuple[int, ...], group: Meeting) -> None:
        self.rank = rank
        self.count = len(shares)
        self.shares = shares
        self._group = group

    def sum(self, values: Tensor) -> Tensor:
        return self._group.sum(self.rank, values.detach().clone())

    def all_reduce_sum(self, values: Tensor) -> None:
        values.copy_(self.sum(values))


class Meeting:
    def __init__(self) -> None:
        self._barrier = threading.Barrier(LEARNERS, timeout=20)
        self._parts: dict[int, Tensor] = {}

    def sum(self, rank: int, values: Tensor) -> Tensor:
        self._parts[rank] = values
        self._barrier.wait()
        total = torch.stack([self._parts[i] for i in range(LEARNERS)]).sum(0)
        self._barrier.wait()
        return total


def share_of(batch: Batch, rank: int, shares: tuple[int, ...]) -> dict[str, Tensor]:
    first = sum(shares[:rank])
    columns = slice(first, first + shares[rank])
    return {
        name: values[columns] if values.dim() == 1 else values[:, columns]
        for name, values in batch.items()
    }


def side_by_side(learn: Callable[[int], None]) -> None:
    threads = [threading.Thread(target=learn, args=(rank,)) for rank in range(LEARNERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)


def learn_together(
    algorithm: Algorithm, batches: list[dict[str, Tensor]], shares: tuple[int, ...]
) -> list[LearnerState]:
    group = Meeting()
    states = [algorithm.init(7) for _ in range(LEARNERS)]

    def learn(rank: int) -> None:
        replicas = ThreadReplicas(rank, shares, group)
        states[rank].replicas = replicas
        states[rank].weights.complete = replicas.all_reduce_sum
        for number, batch in enumerate(batches):
            states[rank].progress = number / len(batches)
            algorithm.update(states[rank], share_of(batch, rank, shares))

    side_by_side(learn)
    return states
