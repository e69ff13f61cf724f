"""Batches of random steps for actor-critic algorithms, and their perceptron in NumPy."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from engine.algorithms.networks import PolicyValueNetwork


def make_batch(seed: int = 0, *, is_discrete: bool = True) -> dict[str, Tensor]:
    """Random steps of 4 environments, [T=6, B=4]: environment 0 terminates at step 2, environment 1
    is truncated at step 3; the step after each only resets, and is not valid."""
    random = torch.Generator().manual_seed(seed)
    shape = (6, 4)
    terminated, truncated = torch.zeros(shape, dtype=bool), torch.zeros(shape, dtype=bool)
    terminated[2, 0] = truncated[3, 1] = True
    valid = torch.ones(shape, dtype=bool)
    valid[3, 0] = valid[4, 1] = False
    discrete = torch.randint(3, shape, generator=random)
    continuous = torch.randn((*shape, 2), generator=random)
    return {
        "observation": torch.randn((7, 4, 4), generator=random),
        "action": discrete if is_discrete else continuous,
        "log_prob": -torch.rand(shape, generator=random) - 0.7,
        "reward": torch.randn(shape, generator=random),
        "terminated": terminated,
        "truncated": truncated,
        "valid": valid,
    }


def spoil_invalid_steps(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Other actions, rewards and log-probabilities where a step only reset its environment."""
    spoilt = {name: values.clone() for name, values in batch.items()}
    invalid = ~batch["valid"]
    spoilt["action"][invalid] = (spoilt["action"][invalid] + 1) % 3
    spoilt["reward"][invalid] = 100.0
    spoilt["log_prob"][invalid] -= 3.0
    return spoilt


def forward(network: PolicyValueNetwork, trunk: str, observation: np.ndarray) -> np.ndarray:
    """The perceptron, by hand, in float64."""
    parameters = [
        p.detach().double().numpy() for n, p in network.named_parameters() if n.startswith(trunk)
    ]
    hidden = observation.astype(np.float64)
    for i in range(0, len(parameters), 2):
        hidden = hidden @ parameters[i].T + parameters[i + 1]
        if i < len(parameters) - 2:
            hidden = np.tanh(hidden)
    return hidden
