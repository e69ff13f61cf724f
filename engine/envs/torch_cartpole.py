"""CartPole-v1 on tensors: the dynamics of Gymnasium's (Barto, Sutton & Anderson, 1983).

States are float64 as there, so that both go the same way for whole episodes; observations float32.
"""

from __future__ import annotations

import math

import gymnasium
import numpy as np
import torch
from torch import Tensor

from engine.envs.torch_batch import Moved, TorchBatch, centred

GRAVITY, CART_MASS, POLE_MASS, HALF_POLE_LENGTH, FORCE = 9.8, 1.0, 0.1, 0.5, 10.0
TOTAL_MASS = CART_MASS + POLE_MASS
POLE_MOMENT = POLE_MASS * HALF_POLE_LENGTH
STEP_S = 0.02
MAX_POSITION = 2.4
MAX_ANGLE = 12 * 2 * math.pi / 360
MAX_EPISODE_STEPS = 500
RESET_RANGE = 0.05


class TorchCartPole(TorchBatch):
    """Copies of CartPole-v1 that step together.

    Args:
        num_envs: B.
        device: Where all tensors live.
        sutton_barto_reward: As Gymnasium's: 0 for each step, -1 for the one that fails.

    Attributes:
        state: Position, speed, angle and angular speed, float64 [B, 4].
    """

    def __init__(
        self, num_envs: int, device: torch.device, sutton_barto_reward: bool = False
    ) -> None:
        super().__init__(num_envs, 4, torch.float64, device, MAX_EPISODE_STEPS, 4)
        limits = [MAX_POSITION * 2, np.inf, MAX_ANGLE * 2, np.inf]
        high = np.array(limits, dtype=np.float32)
        self.single_observation_space = gymnasium.spaces.Box(-high, high, dtype=np.float32)
        self.single_action_space = gymnasium.spaces.Discrete(2)
        self._sutton_barto_reward = sutton_barto_reward

    def _begin(self, drawn: Tensor) -> Tensor:
        return centred(drawn, RESET_RANGE)

    def _move(self, action: Tensor, drawn: Tensor) -> Moved:
        moved = move(self.state, action)
        has_failed = (moved[:, 0].abs() > MAX_POSITION) | (moved[:, 2].abs() > MAX_ANGLE)
        if self._sutton_barto_reward:
            return moved, -has_failed.to(torch.float32), has_failed
        return moved, torch.ones_like(has_failed, dtype=torch.float32), has_failed

    def _observe(self) -> Tensor:
        return self.state.to(torch.float32)


def move(state: Tensor, action: Tensor) -> Tensor:
    """The next state by Euler's method; states float64 [B, 4], actions [B] of 0 and 1.

    The angle's acceleration is equation 23, the cart's 24 of Florian (2007), without friction.
    """
    _, x_dot, theta, theta_dot = state.unbind(-1)
    force = torch.where(action == 1, FORCE, -FORCE).to(state.dtype)
    cosine, sine = theta.cos(), theta.sin()
    thrust = (force + POLE_MOMENT * theta_dot.square() * sine) / TOTAL_MASS
    theta_acceleration = (GRAVITY * sine - cosine * thrust) / (
        HALF_POLE_LENGTH * (4.0 / 3.0 - POLE_MASS * cosine.square() / TOTAL_MASS)
    )
    x_acceleration = thrust - POLE_MOMENT * theta_acceleration * cosine / TOTAL_MASS
    change = torch.stack((x_dot, x_acceleration, theta_dot, theta_acceleration), dim=-1)
    return state + STEP_S * change
