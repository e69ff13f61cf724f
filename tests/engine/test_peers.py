"""Learners that share a batch take the very update that one learner would on the whole of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from engine.algorithms.base import Algorithm, Batch, Lanes, LearnerState
from engine.algorithms.peers import Alone, minibatch_rows
from engine.algorithms.registry import make_algorithm
from engine.spec import Experiment
from engine.testing import discrete_spaces, make_experiment

T, B, LEARNERS = 10, 8, 2


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """As in every role; and the kernels of two learners would spin against each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class ThreadPeers:
    """Learners as threads of one process; `sum` is a meeting."""

    def __init__(self, rank: int, meeting: Meeting) -> None:
        self.rank = rank
        self.count = LEARNERS
        self._meeting = meeting

    def sum(self, values: Tensor) -> Tensor:
        return self._meeting.sum(self.rank, values.detach().clone())

    def add_up(self, values: Tensor) -> None:
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


def ppo(**changes: object) -> Experiment:
    return make_experiment(minibatch_steps=20, num_epochs=3, **changes)  # type: ignore[arg-type]


def impala() -> Experiment:
    small = make_experiment()
    algorithm = {"name": "impala", "rollout_steps": T, "batch_steps": T * B}
    return type(small)(
        name="test", env=small.env, algorithm=algorithm, network=small.network, stop=small.stop
    )


def make_batch(algorithm: Algorithm, num_batch: int) -> dict[str, Tensor]:
    """Random steps with ends of episodes, and so with unequal numbers of valid steps."""
    generator = torch.Generator().manual_seed(num_batch)
    state = algorithm.init(0)
    observation = torch.randn((T + 1, B, 4), generator=generator)
    with torch.no_grad():
        noise = algorithm.noise(generator, T, Lanes(0, B, B))
        chosen = [algorithm.act(state.network, observation[t], noise[t]) for t in range(T)]
    ended = torch.rand((T, B), generator=generator) < 0.15
    terminated = ended & (torch.rand((T, B), generator=generator) < 0.5)
    valid = torch.ones((T, B), dtype=torch.bool)
    valid[1:] = ~ended[:-1]
    return {
        "observation": observation,
        **{name: torch.stack([step[name] for step in chosen]) for name in chosen[0]},
        "reward": torch.randn((T, B), generator=generator) * 3,
        "terminated": terminated,
        "truncated": ended & ~terminated,
        "valid": valid,
    }


def share_of(batch: Batch, rank: int) -> dict[str, Tensor]:
    columns = B // LEARNERS
    return {
        name: values[:, rank * columns : (rank + 1) * columns] for name, values in batch.items()
    }


def learn_together(algorithm: Algorithm, batches: list[dict[str, Tensor]]) -> list[LearnerState]:
    meeting = Meeting()
    states = [algorithm.init(7) for _ in range(LEARNERS)]

    def learn(rank: int) -> None:
        peers = ThreadPeers(rank, meeting)
        states[rank].peers = peers
        states[rank].weights.complete = peers.add_up
        for batch in batches:
            algorithm.update(states[rank], share_of(batch, rank))

    threads = [threading.Thread(target=learn, args=(rank,)) for rank in range(LEARNERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return states


@pytest.mark.parametrize("experiment", [ppo(), ppo(normalize_advantage=False), impala()])
def test_two_learners_on_half_batches_equal_one_on_the_whole_batch(experiment: Experiment):
    algorithm = make_algorithm(experiment, discrete_spaces())
    batches = [make_batch(algorithm, number) for number in range(20)]
    alone = algorithm.init(7)
    for batch in batches:
        algorithm.update(alone, batch)
    together = learn_together(algorithm, batches)
    start = algorithm.init(7).weights.vector
    assert (alone.weights.vector - start).abs().max() > 5e-3, "something was learnt"
    for state in together:
        torch.testing.assert_close(state.weights.vector, alone.weights.vector, rtol=0, atol=1e-5)
        assert state.num_updates == alone.num_updates
    assert torch.equal(together[0].weights.vector, together[1].weights.vector)


def test_the_minibatches_of_all_learners_are_those_of_one():
    whole = torch.arange(T * B).view(T, B)
    one = minibatch_rows((T, B), 2, 16, torch.Generator().manual_seed(3), Alone())
    shares = [
        minibatch_rows(
            (T, B // LEARNERS), 2, 16, torch.Generator().manual_seed(3), Alone(rank, LEARNERS)
        )
        for rank in range(LEARNERS)
    ]
    held = [whole[:, rank * 4 : rank * 4 + 4].flatten() for rank in range(LEARNERS)]
    for rows, *parts in zip(one, *shares, strict=True):
        found = torch.cat([values[part] for values, part in zip(held, parts, strict=True)])
        assert sorted(found.tolist()) == sorted(rows.tolist())
