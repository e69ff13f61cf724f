"""Returns in Python's own numbers, as papers state them."""

from __future__ import annotations

import numpy as np


def advantage_by_hand(
    reward: np.ndarray,
    value: np.ndarray,
    terminated: np.ndarray,
    truncated: np.ndarray,
    discount: float,
    gae_lambda: float,
) -> np.ndarray:
    """A_t = sum over k of (discount lambda)^k delta_{t+k}, up to the end of t's episode."""
    num_steps, num_envs = reward.shape
    advantage = np.zeros((num_steps, num_envs), np.float64)
    for env in range(num_envs):
        for start in range(num_steps):
            factor = 1.0
            for t in range(start, num_steps):
                future = 0.0 if terminated[t, env] else value[t + 1, env]
                delta = reward[t, env] + discount * future - value[t, env]
                advantage[start, env] += factor * delta
                if terminated[t, env] or truncated[t, env]:
                    break
                factor *= discount * gae_lambda
    return advantage
