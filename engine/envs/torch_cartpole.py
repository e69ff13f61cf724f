"""CartPole-v1 on tensors: the dynamics of Gymnasium's (Barto, Sutton & Anderson, 1983).

States are float64 as there, so that both go the same way for whole episodes; observations float32.
"""

from __future__ import annotations

import math

import gymnasium
import numpy as np
import torch
from torch import Tensor

GRAVITY, CART_MASS, POLE_MASS, HALF_POLE_LENGTH, FORCE = 9.8, 1.0, 0.1, 0.5, 10.0
TOTAL_MASS = CART_MASS + POLE_MASS
POLE_MOMENT = POLE_MASS * HALF_POLE_LENGTH
STEP_S = 0.02
MAX_POSITION = 2.4
MAX_ANGLE = 12 * 2 * math.pi / 360
MAX_EPISODE_STEPS = 500
RESET_RANGE = 0.05


class TorchCartPole:
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
        limits = [MAX_POSITION * 2, np.inf, MAX_ANGLE * 2, np.inf]
        high = np.array(limits, dtype=np.float32)
        self.single_observation_space = gymnasium.spaces.Box(-high, high, dtype=np.float32)
        self.single_action_space = gymnasium.spaces.Discrete(2)
        self._sutton_barto_reward = sutton_barto_reward
        self._generator = torch.Generator(device=device)
        self.state = torch.zeros((num_envs, 4), dtype=torch.float64, device=device)
        self._age = torch.zeros(num_envs, dtype=torch.int64, device=device)
        self._has_ended = torch.zeros(num_envs, dtype=torch.bool, device=device)

    def reset(self, seed: int) -> Tensor:
        """See `TorchEnvironment`."""
        self._generator.manual_seed(seed)
        self.state = self._fresh()
        self._age = torch.zeros_like(self._age)
        self._has_ended = torch.zeros_like(self._has_ended)
        return self.state.to(torch.float32)

    def step(self, action: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """See `TorchEnvironment`; copies whose episode has ended reset."""
        resets = self._has_ended
        moved = move(self.state, action)
        self.state = torch.where(resets.unsqueeze(-1), self._fresh(), moved)
        self._age = torch.where(resets, 0, self._age + 1)
        has_failed = (self.state[:, 0].abs() > MAX_POSITION) | (self.state[:, 2].abs() > MAX_ANGLE)
        terminated = has_failed & ~resets
        truncated = (self._age >= MAX_EPISODE_STEPS) & ~resets
        self._has_ended = terminated | truncated
        observation = self.state.to(torch.float32)
        return observation, self._reward(terminated, resets), terminated, truncated

    def _fresh(self) -> Tensor:
        uniform = torch.rand(
            self.state.shape,
            dtype=self.state.dtype,
            device=self.state.device,
            generator=self._generator,
        )
        return (2 * uniform - 1) * RESET_RANGE

    def _reward(self, terminated: Tensor, resets: Tensor) -> Tensor:
        if self._sutton_barto_reward:
            return -terminated.to(torch.float32)
        return (~resets).to(torch.float32)


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
