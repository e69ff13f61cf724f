"""V-trace against equation 1 of the paper, as a plain double sum in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.algorithms.returns import generalized_advantages, vtrace
from tests.helpers.engine.vtrace_by_hand import targets_by_hand


@settings(deadline=None, max_examples=100, derandomize=True)
@given(
    num_steps=st.integers(1, 10),
    num_envs=st.integers(1, 4),
    discount=st.floats(0, 1),
    trace_lambda=st.floats(0, 1),
    max_c=st.floats(0.1, 2),
    spare_rho=st.floats(0, 2),
    end_share=st.sampled_from((0.0, 0.1, 0.5)),
    seed=st.integers(0, 2**32 - 1),
)
def test_targets_and_advantages_are_what_the_paper_says(
    num_steps: int,
    num_envs: int,
    discount: float,
    trace_lambda: float,
    max_c: float,
    spare_rho: float,
    end_share: float,
    seed: int,
):
    random = np.random.default_rng(seed)
    shape = (num_steps, num_envs)
    arrays = (
        random.normal(size=shape),
        random.normal(size=shape),
        random.normal(size=(num_steps + 1, num_envs)),
        random.random(shape) < end_share,
        random.random(shape) < end_share,
    )
    levels = {"discount": discount, "trace_lambda": trace_lambda}
    levels |= {"max_rho": max_c + spare_rho, "max_c": max_c}
    found = vtrace(*(torch.from_numpy(array) for array in arrays), **levels)
    targets, advantages = targets_by_hand(*arrays, *levels.values())
    np.testing.assert_allclose(found.value_target.numpy(), targets, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.advantage.numpy(), advantages, rtol=0, atol=1e-6)


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64).unsqueeze(1)


NEVER = torch.zeros(2, 1, dtype=torch.bool)


def test_a_case_worked_out_on_paper():
    """Ratios 2 and 0.5, rewards 1 and 2, values 1, 2, 4, discount 0.5.

    delta_1 = 0.5 (2 + 0.5 * 4 - 2) = 1, so vs_1 = 3.
    delta_0 = 1 (1 + 0.5 * 2 - 1) = 1, so vs_0 = 1 + 1 + 0.5 * 1 * (3 - 2) = 2.5.
    Advantages: 1 (1 + 0.5 * 3 - 1) = 1.5 and 0.5 (2 + 0.5 * 4 - 2) = 1.
    """
    ratio = column(math.log(2), math.log(0.5))
    found = vtrace(ratio, column(1, 2), column(1, 2, 4), NEVER, NEVER, discount=0.5)
    assert found.value_target.squeeze(1).tolist() == pytest.approx([2.5, 3.0])
    assert found.advantage.squeeze(1).tolist() == pytest.approx([1.5, 1.0])


def test_on_policy_targets_are_lambda_returns():
    """With ratios of 1, remark 1 of the paper: V-trace is the n-step Bellman target."""
    random = torch.Generator().manual_seed(1)
    reward = torch.randn((7, 3), generator=random)
    value = torch.randn((8, 3), generator=random)
    terminated = torch.rand((7, 3), generator=random) < 0.2
    truncated = torch.rand((7, 3), generator=random) < 0.2
    found = vtrace(
        torch.zeros(7, 3), reward, value, terminated, truncated, discount=0.9, trace_lambda=0.8
    )
    advantage = generalized_advantages(
        reward, value, terminated, truncated, discount=0.9, gae_lambda=0.8
    )
    torch.testing.assert_close(found.value_target, advantage + value[:-1])


@pytest.mark.parametrize(("terminated", "expected"), [(True, 3.0), (False, 3.0 + 0.5 * 4.0)])
def test_only_a_terminated_episode_has_no_future(terminated: bool, expected: float):
    ends = torch.tensor([[False], [True]])
    truncated, flags = (NEVER, ends) if terminated else (ends, NEVER)
    found = vtrace(column(0, 0), column(1, 3), column(1, 2, 4), flags, truncated, discount=0.5)
    assert found.value_target[1].item() == pytest.approx(expected)


def test_what_comes_after_an_episode_does_not_reach_back():
    ends = torch.tensor([[True], [False]])
    results = [
        vtrace(column(0, 0), column(1, later), column(1, 2, 4), NEVER, ends, discount=0.5)
        for later in (0.0, 100.0)
    ]
    assert results[0].value_target[0] == results[1].value_target[0]
    assert results[0].advantage[0] == results[1].advantage[0]
