"""The two-step game of Rashid et al. (2018), section 5, as transitions: all that there are."""

from __future__ import annotations

import itertools

import gymnasium
import numpy as np
import torch
from torch import Tensor

from engine.algorithms.base import Spaces
from engine.testing import team_spaces

SEEN = gymnasium.spaces.Box(0, 1, (3,), np.float32)
DISCOUNT = 0.99
PAYOFF = {1: [[7.0, 7.0], [7.0, 7.0]], 2: [[0.0, 1.0], [1.0, 8.0]]}


def two_step_spaces() -> Spaces:
    choice = gymnasium.spaces.Discrete(2)
    return team_spaces({"a": SEEN, "b": SEEN}, {"a": choice, "b": choice})


def every_transition() -> dict[str, Tensor]:
    """One of each state and joint action, [12, ...]: those of uniform exploration."""
    rows = []
    for state, first, second in itertools.product(range(3), range(2), range(2)):
        begins = state == 0
        later = 1 + first if begins else state
        reward = 0.0 if begins else PAYOFF[state][first][second]
        rows.append((state, [first, second], reward, DISCOUNT if begins else 0.0, later))
    states, actions, rewards, discounts, laters = (
        torch.tensor(column) for column in zip(*rows, strict=True)
    )
    present = torch.ones(len(rows), 2, dtype=torch.int8)
    samples = {
        "action": actions,
        "reward": rewards,
        "discount": discounts,
        "weight": torch.ones(len(rows)),
    }
    for prefix, numbers in (("observation", states), ("next_observation", laters)):
        seen = torch.eye(3)[numbers]
        samples |= {
            f"{prefix}.agents.a": seen,
            f"{prefix}.agents.b": seen,
            f"{prefix}.team.reward": torch.zeros(len(rows), 2),
            f"{prefix}.team.present": present,
            f"{prefix}.team.terminated": torch.zeros_like(present),
        }
    return samples
