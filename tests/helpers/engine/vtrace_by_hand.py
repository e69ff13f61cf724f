"""V-trace in Python's own numbers, as its paper states it."""

from __future__ import annotations

import numpy as np


def targets_by_hand(
    log_ratio: np.ndarray,
    reward: np.ndarray,
    value: np.ndarray,
    terminated: np.ndarray,
    truncated: np.ndarray,
    discount: float,
    trace_lambda: float,
    max_rho: float,
    max_c: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Equation 1: vs_s = V(x_s) + sum_t gamma^(t-s) (prod_{s<=i<t} c_i) delta_t V; section 4.2."""
    num_steps, num_envs = reward.shape
    targets = np.zeros((num_steps, num_envs))
    advantages = np.zeros((num_steps, num_envs))
    for env in range(num_envs):
        ends = terminated[:, env] | truncated[:, env]
        ratio = np.exp(log_ratio[:, env])
        v = value[:, env]

        def after(t: int, env: int = env, v: np.ndarray = v) -> float:
            return 0.0 if terminated[t, env] else v[t + 1]

        for s in range(num_steps):
            total, product = v[s], 1.0
            for t in range(s, num_steps):
                delta = min(max_rho, ratio[t]) * (reward[t, env] + discount * after(t) - v[t])
                total += product * delta
                if ends[t]:
                    break
                product *= discount * trace_lambda * min(max_c, ratio[t])
            targets[s, env] = total
        for s in range(num_steps):
            follows = s + 1 < num_steps and not ends[s]
            future = targets[s + 1, env] if follows else after(s)
            error = reward[s, env] + discount * future - v[s]
            advantages[s, env] = min(max_rho, ratio[s]) * error
    return targets, advantages
