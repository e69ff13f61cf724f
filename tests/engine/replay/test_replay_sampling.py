"""Sampling against the probabilities that the papers state."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.replay.prioritized import PRIORITY_FLOOR, PrioritizedSampler, SumTree
from engine.replay.sampler import UniformSampler


@settings(deadline=None, max_examples=60, derandomize=True)
@given(num_leaves=st.integers(1, 70), seed=st.integers(0, 2**32 - 1))
def test_the_tree_finds_what_a_running_sum_finds(num_leaves: int, seed: int):
    random = np.random.default_rng(seed)
    values = np.zeros(num_leaves)
    tree = SumTree(num_leaves)
    for _ in range(3):
        leaves = random.integers(num_leaves, size=num_leaves)
        new = random.integers(0, 5, size=num_leaves).astype(float)
        tree.set(leaves, new)
        values[leaves] = new
        assert tree.total == values.sum()
        np.testing.assert_array_equal(tree.get(np.arange(num_leaves)), values)
        if values.sum():
            mass = random.random(50) * values.sum()
            wanted = np.searchsorted(np.cumsum(values), mass, side="right")
            np.testing.assert_array_equal(tree.find(mass), wanted)


def test_a_mass_at_the_very_end_finds_no_empty_leaf():
    tree = SumTree(8)
    tree.set(np.arange(3), np.array([0.1, 0.2, 0.3]))
    assert tree.find(np.array([tree.total, tree.total * 2])).tolist() == [2, 2]


def make_sampler(alpha: float = 0.7, beta: float = 0.5) -> PrioritizedSampler:
    return PrioritizedSampler(
        16, np.random.default_rng(0), priority_exponent=alpha, importance_exponent=beta
    )


def test_probabilities_and_weights_are_those_of_the_paper():
    """Equation 1 and section 3.4 of Schaul et al., written out for six transitions."""
    sampler, errors = make_sampler(), np.array([0.5, 1.0, 2.0, 0.1, 4.0, 0.0])
    sampler.insert(0, np.ones(6, bool), None)
    sampler.update(np.arange(6), errors)
    powers = [(abs(e) + PRIORITY_FLOOR) ** 0.7 for e in errors]
    probability = np.array([p / sum(powers) for p in powers])
    draws = 60_000
    positions, weights = sampler.draw(draws)
    found = np.bincount(positions, minlength=6) / draws
    np.testing.assert_allclose(found, probability, atol=2 / draws)  # stratified: nearly exact
    raw = (6 * probability[positions]) ** -0.5
    np.testing.assert_allclose(weights, raw / raw.max(), rtol=0, atol=1e-6)


def test_what_is_new_gets_the_largest_priority_so_far():
    sampler = make_sampler(alpha=1.0)
    sampler.insert(0, np.ones(2, bool), None)
    sampler.update(np.array([0, 1]), np.array([3.0, 1.0]))
    sampler.insert(2, np.ones(1, bool), None)
    positions, _ = sampler.draw(70_000)
    found = np.bincount(positions, minlength=3) / 10_000
    np.testing.assert_allclose(found, [3, 1, 3], atol=1e-3)


@pytest.mark.parametrize(
    "make", [make_sampler, lambda: UniformSampler(16, np.random.default_rng(1))]
)
def test_steps_that_only_reset_are_never_drawn(make):
    sampler = make()
    with pytest.raises(ValueError, match="nothing"):
        sampler.draw(1)
    is_transition = np.tile([True, False, True, True], 2)
    sampler.insert(0, is_transition, None)
    sampler.insert(8, ~is_transition, None)
    sampler.update(np.array([1, 8]), np.array([100.0, 100.0]))  # not transitions: no effect
    positions, weights = sampler.draw(4000)
    assert set(positions.tolist()) == {0, 2, 3, 4, 6, 7, 9, 13}
    assert weights.max() == 1.0
    sampler.insert(0, ~is_transition, None)  # the first rollout is overwritten
    assert set(sampler.draw(4000)[0].tolist()) == {1, 5, 9, 13}


def test_uniform_draws_are_even():
    sampler = UniformSampler(100, np.random.default_rng(2))
    sampler.insert(0, np.arange(50) % 5 != 0, None)
    counts = np.bincount(sampler.draw(40_000)[0], minlength=50)
    drawn = counts[np.arange(50) % 5 != 0]
    assert ((drawn - 1000) ** 2 / 1000).sum() < 73.0, (
        "99.9 % of fair samples stay below (39 d.o.f.)"
    )


def test_errors_that_are_not_finite_are_not_believed():
    sampler = make_sampler(alpha=1.0)
    sampler.insert(0, np.ones(2, bool), None)
    sampler.update(np.array([0, 1]), np.array([np.nan, np.inf]))
    assert set(sampler.draw(100)[0].tolist()) == {0, 1}


def test_errors_that_actors_found_are_where_priorities_begin():
    sampler = make_sampler(alpha=1.0)
    sampler.insert(0, np.array([True, True, False]), np.array([3.0, 1.0, 0.0]))
    positions, _ = sampler.draw(40_000)
    found = np.bincount(positions, minlength=3) / 10_000
    np.testing.assert_allclose(found, [3, 1, 0], atol=1e-3)
