"""Advantages against the formula, written a second time in another way."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.algorithms.returns import generalized_advantages
from tests.helpers.engine.returns_by_hand import advantage_by_hand
from tests.helpers.paths import REPOSITORY


@settings(deadline=None, max_examples=100, derandomize=True)
@given(
    num_steps=st.integers(1, 12),
    num_envs=st.integers(1, 4),
    discount=st.floats(0, 1),
    gae_lambda=st.floats(0, 1),
    end_share=st.sampled_from((0.0, 0.1, 0.5)),
    seed=st.integers(0, 2**32 - 1),
)
def test_advantages_are_what_the_formula_says(
    num_steps: int, num_envs: int, discount: float, gae_lambda: float, end_share: float, seed: int
):
    random = np.random.default_rng(seed)
    reward = random.normal(size=(num_steps, num_envs))
    value = random.normal(size=(num_steps + 1, num_envs))
    terminated = random.random((num_steps, num_envs)) < end_share
    truncated = random.random((num_steps, num_envs)) < end_share
    found = generalized_advantages(
        torch.from_numpy(reward),
        torch.from_numpy(value),
        torch.from_numpy(terminated),
        torch.from_numpy(truncated),
        discount=discount,
        gae_lambda=gae_lambda,
    )
    wanted = advantage_by_hand(reward, value, terminated, truncated, discount, gae_lambda)
    np.testing.assert_allclose(found.numpy(), wanted, rtol=0, atol=1e-6)


def two_steps(*, terminated: bool = False, truncated: bool = False) -> list[float]:
    """Rewards 1 and 2, values 10, 20 and 30, discount and lambda a half; the first step ends."""
    ends = torch.tensor([[True], [False]])
    never = torch.zeros_like(ends)
    advantage = generalized_advantages(
        torch.tensor([[1.0], [2.0]]),
        torch.tensor([[10.0], [20.0], [30.0]]),
        ends if terminated else never,
        ends if truncated else never,
        discount=0.5,
        gae_lambda=0.5,
    )
    return advantage.squeeze(1).tolist()


def test_an_episode_that_goes_on_is_credited_with_what_follows():
    # delta_1 = 2 + 0.5 * 30 - 20 = -3; delta_0 = 1 + 0.5 * 20 - 10 = 1; A_0 = 1 + 0.25 * -3
    assert two_steps() == [0.25, -3.0]


def test_a_terminated_episode_has_no_future():
    # A_0 = 1 + 0 - 10
    assert two_steps(terminated=True) == [-9.0, -3.0]


def test_a_truncated_episode_is_bootstrapped_from_its_last_observation_and_then_cut():
    # A_0 = 1 + 0.5 * 20 - 10
    assert two_steps(truncated=True) == [1.0, -3.0]


def test_sums_in_time_do_not_import_pytorchs_compiler():
    """It would take seconds of the first update of every learner."""
    program = (
        "import sys, torch\n"
        "from engine.algorithms.returns import accumulate\n"
        "print(accumulate(torch.ones(3, 1), torch.ones(3, 1)).flatten().tolist())\n"
        "print('torch._dynamo' in sys.modules)\n"
    )
    command = [sys.executable, "-c", program]
    out = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    assert out.splitlines() == ["[3.0, 2.0, 1.0]", "False"]
