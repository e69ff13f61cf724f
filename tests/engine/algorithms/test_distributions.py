"""Distributions against textbook formulas in float64, and against their own samples."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from engine.algorithms.distributions import Categorical, DiagonalGaussian

MEAN = torch.tensor([[0.5, -1.0], [2.0, 0.0]], dtype=torch.float64)
LOG_STD = torch.tensor([0.3, -0.7], dtype=torch.float64)


def sample(policy: DiagonalGaussian, num_states: int, seed: int) -> torch.Tensor:
    return policy.sample(policy.draw(torch.Generator().manual_seed(seed), (num_states, 2)))


def test_the_gaussian_density_is_that_of_the_textbook():
    action = torch.tensor([[0.0, -0.5], [2.5, 1.0]], dtype=torch.float64)
    wanted = np.zeros(2)
    for i in range(2):
        for d in range(2):
            std = math.exp(LOG_STD[d].item())
            z = (action[i, d].item() - MEAN[i, d].item()) / std
            wanted[i] += math.log(math.exp(-z * z / 2) / (std * math.sqrt(2 * math.pi)))
    found = DiagonalGaussian(MEAN, LOG_STD).log_prob(action)
    np.testing.assert_allclose(found.numpy(), wanted, rtol=0, atol=1e-6)


def test_the_gaussian_entropy_is_the_mean_surprise():
    policy = DiagonalGaussian(MEAN[:1].expand(200_000, 2), LOG_STD)
    action = sample(policy, 200_000, 0)
    surprise = -policy.log_prob(action).mean().item()
    assert policy.entropy()[0].item() == pytest.approx(surprise, abs=0.01)
    wanted = sum(0.5 * math.log(2 * math.pi * math.e * math.exp(2 * s)) for s in (0.3, -0.7))
    assert policy.entropy()[0].item() == pytest.approx(wanted, abs=1e-6)


def test_gaussian_samples_have_its_mean_and_deviation():
    action = sample(DiagonalGaussian(MEAN[:1].expand(200_000, 2), LOG_STD), 200_000, 1)
    torch.testing.assert_close(action.mean(0), MEAN[0], rtol=0, atol=0.02)
    torch.testing.assert_close(action.std(0), LOG_STD.exp(), rtol=0, atol=0.02)


def test_categorical_figures_are_those_of_the_softmax():
    logits = torch.tensor([[0.0, 1.0, 2.0], [3.0, -1.0, 0.5]], dtype=torch.float64)
    policy = Categorical(logits)
    odds = np.exp(logits.numpy())
    shares = odds / odds.sum(1, keepdims=True)
    found = policy.log_prob(torch.tensor([2, 1]))
    np.testing.assert_allclose(found.numpy(), np.log([shares[0, 2], shares[1, 1]]), atol=1e-6)
    wanted = -(shares * np.log(shares)).sum(1)
    np.testing.assert_allclose(policy.entropy().numpy(), wanted, atol=1e-6)
    assert policy.mode().tolist() == [2, 0]


def test_equal_generators_give_equal_actions():
    policy = DiagonalGaussian(MEAN, LOG_STD)
    one, other = (sample(policy, 2, 3) for _ in range(2))
    assert torch.equal(one, other)
