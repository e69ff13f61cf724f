"""Learners that share a batch take the very update that one learner would on the whole of it."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch
from msgspec.structs import replace
from torch import Tensor

from engine.algorithms.base import Algorithm, EnvSlice, Spaces
from engine.algorithms.critics.continuous_control import ContinuousControl
from engine.algorithms.impala import Impala
from engine.algorithms.networks import RunningStatistics
from engine.algorithms.registry import make_algorithm
from engine.algorithms.replicas import SingleReplica, minibatch_rows
from engine.layers.inputs import STATE
from engine.spec import CoreSpec, Experiment, StalenessSpec
from engine.testing import discrete_spaces, make_experiment
from tests.helpers.engine.replica_learners import (
    LEARNERS,
    Meeting,
    ThreadReplicas,
    learn_together,
    one_thread,
    share_of,
    side_by_side,
)

T, B = 10, 8
HALVES, UNEQUAL = (4, 4), (5, 3)


_one_thread = pytest.fixture(autouse=True)(one_thread)


def ppo(**changes: object) -> Experiment:
    return make_experiment(minibatch_steps=20, num_epochs=3, **changes)  # type: ignore[arg-type]


def impala(**changes: object) -> Experiment:
    algorithm = {"name": "impala", "rollout_steps": T, "batch_steps": T * B, **changes}
    return replace(make_experiment(), algorithm=algorithm)


def dqn(**changes: object) -> Experiment:
    algorithm = {
        **{"name": "dqn", "batch_size": B, "updates_per_batch": T, "dueling": True},
        **{"target_update_period": T, "prioritized": True, **changes},
    }
    unbounded = StalenessSpec(mode="unbounded")
    return replace(make_experiment(staleness=unbounded), algorithm=algorithm)


def of_reals(name: str, **changes: object) -> Experiment:
    """SAC or TD3."""
    algorithm = {"name": name, "batch_size": B, "updates_per_batch": T, "learning_rate": 1e-4}
    unbounded = StalenessSpec(mode="unbounded")
    return replace(make_experiment(staleness=unbounded), algorithm=algorithm | changes)


def normalised(experiment: Experiment) -> Experiment:
    network = replace(experiment.network, normalize_observation=True)
    return replace(experiment, network=network)


def remembering(experiment: Experiment) -> Experiment:
    network = replace(experiment.network, core=CoreSpec(name="gru", size=6))
    return replace(experiment, network=network)


def make_batch(algorithm: Algorithm, num_batch: int) -> dict[str, Tensor]:
    """Random steps with ends of episodes, and so with unequal numbers of valid steps."""
    generator = torch.Generator().manual_seed(num_batch)
    state = algorithm.init(0)
    observation = torch.randn((T + 1, B, 4), generator=generator)
    first = torch.randn((1, B, 6), generator=generator) * 0.3
    has_memory = STATE in {field.name for field in algorithm.samples().fields}
    with torch.no_grad():
        noise = algorithm.noise(generator, T, EnvSlice(0, B, B))
        inputs = [
            {"observation": o_t, STATE: first[0]} if has_memory else o_t for o_t in observation
        ]
        chosen = [algorithm.act(state.network, inputs[t], noise[t]) for t in range(T)]
    ended = torch.rand((T, B), generator=generator) < 0.15
    terminated = ended & (torch.rand((T, B), generator=generator) < 0.5)
    valid = torch.ones((T, B), dtype=torch.bool)
    valid[1:] = ~ended[:-1]
    return {
        "observation": observation,
        **{name: torch.stack([step[name] for step in chosen]) for name in chosen[0]},
        **({STATE: first} if has_memory else {}),
        "reward": torch.randn((T, B), generator=generator) * 3,
        "terminated": terminated,
        "truncated": ended & ~terminated,
        "valid": valid,
        **({"version": -torch.arange(B)} if algorithm.samples().needs_versions else {}),
    }


def make_samples(algorithm: Algorithm, num_batch: int) -> dict[str, Tensor]:
    """Random samples from replay, [updates, batch size]."""
    generator = torch.Generator().manual_seed(num_batch)
    actions = torch.randint(3, (T, B), generator=generator)
    if isinstance(algorithm, ContinuousControl):
        actions = 2 * torch.rand((T, B, 2), generator=generator) - 1
    return {
        "observation": torch.randn((T, B, 4), generator=generator) * 2 + 1,
        "next_observation": torch.randn((T, B, 4), generator=generator),
        "action": actions,
        "reward": torch.randn((T, B), generator=generator) * 3,
        "discount": torch.rand((T, B), generator=generator),
        "weight": torch.rand((T, B), generator=generator),
    }


def batches_of(algorithm: Algorithm) -> list[dict[str, Tensor]]:
    """Enough to learn something: IMPALA takes one step for each, others ten or twelve."""
    make = make_samples if algorithm.samples().samples_replay else make_batch
    count = 20 if isinstance(algorithm, Impala) else 8
    return [make(algorithm, number) for number in range(count)]


ALGORITHMS = {
    "ppo": ppo(),
    "ppo, advantages as they are": ppo(normalize_advantage=False),
    "ppo, normalised": normalised(ppo(normalize_reward=True)),
    "ppo with a memory": remembering(ppo()),
    "impala with a memory": remembering(impala()),
    "impala": impala(),
    "impala, normalised": normalised(impala(normalize_reward=True)),
    "ppo, with options": normalised(
        ppo(
            **{"learning_rate_final": 1e-4, "clip_range_final": 0.1, "value_clip_range": 0.2},
            **{"entropy_coefficient_final": 0.05, "normalize_reward": True},
            normalized_reward_limit=2.0,
        )
    ),
    "ppo, ending early": ppo(target_kl=1e-4),
    "ppo, corrected": ppo(
        **{"decoupled": True, "advantages": "vtrace", "ess_learning_rate": 0.5, "lag_weights": True}
    ),
    "impala, corrected": impala(ess_learning_rate=0.5, lag_weights=True),
    "impala, with options": impala(learning_rate_final=1e-4, entropy_coefficient_final=0.05),
    "dqn": dqn(),
    "dqn, with options": dqn(
        **{"loss": "squared", "epsilon_decay_fraction": 0.5, "importance_exponent_final": 1.0}
    ),
    "dqn, normalised": normalised(dqn()),
    "sac": of_reals("sac", max_gradient_norm=1.0),
    "sac, normalised": normalised(of_reals("sac")),
    "td3": of_reals("td3"),
}


def spaces_for(experiment: Experiment) -> Spaces:
    spaces = discrete_spaces()
    if experiment.algorithm_name not in ("sac", "td3"):
        return spaces
    return Spaces(spaces.observation, gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32))


@pytest.mark.parametrize("shares", [HALVES, UNEQUAL], ids=["halves", "unequal"])
@pytest.mark.parametrize("experiment", ALGORITHMS.values(), ids=list(ALGORITHMS))
def test_two_learners_on_parts_of_batches_equal_one_on_whole_batches(
    experiment: Experiment, shares: tuple[int, ...]
):
    algorithm = make_algorithm(experiment, spaces_for(experiment))
    batches = batches_of(algorithm)
    alone = algorithm.init(7)
    for number, batch in enumerate(batches):
        alone.progress = number / len(batches)
        algorithm.update(alone, batch)
    together = learn_together(algorithm, batches, shares)
    start = algorithm.init(7).weights.vector
    assert (alone.weights.vector - start).abs().max() > 5e-3, "something was learnt"
    for state in together:
        torch.testing.assert_close(state.weights.vector, alone.weights.vector, rtol=0, atol=1e-5)
        assert state.num_updates == alone.num_updates
    assert torch.equal(together[0].weights.vector, together[1].weights.vector)


@pytest.mark.parametrize("shares", [HALVES, UNEQUAL, (7, 1)])
def test_the_minibatches_of_all_learners_are_those_of_one(shares: tuple[int, ...]):
    whole = torch.arange(T * B).view(T, B)
    one = minibatch_rows((T, B), 2, 16, torch.Generator().manual_seed(3), SingleReplica())
    parts_of = [
        minibatch_rows(
            (T, shares[rank]),
            2,
            16,
            torch.Generator().manual_seed(3),
            ThreadReplicas(rank, shares, Meeting()),
        )
        for rank in range(LEARNERS)
    ]
    held = [share_of({"row": whole}, rank, shares)["row"].flatten() for rank in range(LEARNERS)]
    for rows, *parts in zip(one, *parts_of, strict=True):
        found = torch.cat([values[part] for values, part in zip(held, parts, strict=True)])
        assert sorted(found.tolist()) == sorted(rows.tolist())


@pytest.mark.parametrize("shares", [(7, 1), (4, 4)])
def test_metrics_and_errors_are_those_of_the_whole_batch(shares: tuple[int, ...]):
    algorithm = make_algorithm(dqn(), discrete_spaces())
    batch = make_samples(algorithm, 1)
    whole = algorithm.update(algorithm.init(7), batch)
    group, results = Meeting(), {}
    states = [algorithm.init(7) for _ in range(LEARNERS)]

    def learn(rank: int) -> None:
        state = states[rank]
        replicas = ThreadReplicas(rank, shares, group)
        state.replicas, state.weights.complete = replicas, replicas.all_reduce_sum
        results[rank] = algorithm.update(state, share_of(batch, rank, shares))

    side_by_side(learn)
    errors = torch.cat([results[rank].errors for rank in range(LEARNERS)], dim=1)
    torch.testing.assert_close(errors, whole.errors, rtol=1e-4, atol=1e-5)
    for result in results.values():
        assert result.metrics == pytest.approx(whole.metrics, rel=1e-4)
    assert sum(result.samples_trained for result in results.values()) == whole.samples_trained


def test_statistics_of_parts_are_those_of_the_whole_to_rounding_also_far_from_zero():
    generator = torch.Generator().manual_seed(0)
    values = [torch.randn((60, 3), generator=generator) * 0.01 + 1000.0 for _ in range(30)]
    alone, group = RunningStatistics((3,)), Meeting()
    for part in values:
        alone.learn(part)
    together = [RunningStatistics((3,)) for _ in range(LEARNERS)]

    def learn(rank: int) -> None:
        for part in values:
            own = part[:55] if rank == 0 else part[55:]
            together[rank].learn(own, ThreadReplicas(rank, (55, 5), group))

    side_by_side(learn)
    exact = torch.cat(values).to(torch.float64)
    for one in together:
        assert float(one.count) == len(exact)
        torch.testing.assert_close(one.mean.double(), exact.mean(0), rtol=1e-6, atol=0)
        torch.testing.assert_close(
            one.variance.double(), exact.var(0, correction=0), rtol=1e-3, atol=0
        )
        torch.testing.assert_close(one.mean, alone.mean, rtol=1e-6, atol=0)
    assert torch.equal(together[0].mean, together[1].mean)
    assert torch.equal(together[0].variance, together[1].variance)


def test_a_learner_that_has_no_valid_step_learns_the_statistics_of_the_others():
    group, values = Meeting(), torch.arange(12.0).view(4, 3)
    together = [RunningStatistics((3,)) for _ in range(LEARNERS)]
    parts = [values, values[:0]]

    def learn(rank: int) -> None:
        together[rank].learn(parts[rank], ThreadReplicas(rank, HALVES, group))
        together[rank].learn(values[:0], ThreadReplicas(rank, HALVES, group))

    side_by_side(learn)
    for one in together:
        assert float(one.count) == 4
        torch.testing.assert_close(one.mean, values.mean(0))
        torch.testing.assert_close(one.variance, values.var(0, correction=0))
