"""Acrobot-v1 on tensors: the dynamics of Gymnasium's (Sutton, 1996; the book's equations).

States are float64 as there; observations float32.
"""

from __future__ import annotations

import math

import gymnasium
import numpy as np
import torch
from torch import Tensor

from engine.envs.torch_batch import Moved, TorchBatch, centred

GRAVITY, LINK_MASS, LINK_LENGTH, LINK_CENTRE, LINK_MOMENT = 9.8, 1.0, 1.0, 0.5, 1.0
"""Of both links."""
STEP_S = 0.2
MAX_SPEED_1, MAX_SPEED_2 = 4 * math.pi, 9 * math.pi
HEIGHT_TO_REACH = 1.0
MAX_EPISODE_STEPS = 500
RESET_RANGE = 0.1


class TorchAcrobot(TorchBatch):
    """Copies of Acrobot-v1 that step together.

    Args:
        num_envs: B.
        device: Where all tensors live.

    Attributes:
        state: Angle of the first link, of the second one against it, and both speeds, float64
            [B, 4].
    """

    def __init__(self, num_envs: int, device: torch.device) -> None:
        super().__init__(num_envs, 4, torch.float64, device, MAX_EPISODE_STEPS, 4)
        high = np.array([1.0, 1.0, 1.0, 1.0, MAX_SPEED_1, MAX_SPEED_2], dtype=np.float32)
        self.single_observation_space = gymnasium.spaces.Box(-high, high, dtype=np.float32)
        self.single_action_space = gymnasium.spaces.Discrete(3)

    def _begin(self, drawn: Tensor) -> Tensor:
        return centred(drawn, RESET_RANGE)

    def _move(self, action: Tensor, drawn: Tensor) -> Moved:
        moved = move(self.state, action)
        theta_1, theta_2 = moved[:, 0], moved[:, 1]
        has_reached = -theta_1.cos() - (theta_2 + theta_1).cos() > HEIGHT_TO_REACH
        return moved, torch.where(has_reached, 0.0, -1.0), has_reached

    def _observe(self) -> Tensor:
        angles, speeds = self.state[:, :2], self.state[:, 2:]
        directions = torch.stack((angles.cos(), angles.sin()), dim=-1).flatten(1)
        return torch.cat((directions, speeds), dim=-1).to(torch.float32)


def move(state: Tensor, action: Tensor) -> Tensor:
    """The next state by the classical Runge-Kutta method; states float64 [B, 4], actions [B]."""
    torque = action.to(state.dtype) - 1.0
    half_s = STEP_S / 2.0
    k_1 = _change(state, torque)
    k_2 = _change(state + half_s * k_1, torque)
    k_3 = _change(state + half_s * k_2, torque)
    k_4 = _change(state + STEP_S * k_3, torque)
    theta_1, theta_2, speed_1, speed_2 = (
        state + STEP_S / 6.0 * (k_1 + 2 * k_2 + 2 * k_3 + k_4)
    ).unbind(-1)
    return torch.stack(
        (
            _wrap(theta_1),
            _wrap(theta_2),
            speed_1.clamp(-MAX_SPEED_1, MAX_SPEED_1),
            speed_2.clamp(-MAX_SPEED_2, MAX_SPEED_2),
        ),
        dim=-1,
    )


def _change(state: Tensor, torque: Tensor) -> Tensor:
    """Derivative of a state, [B, 4], with torques [B] between the links."""
    m, length, centre, moment = LINK_MASS, LINK_LENGTH, LINK_CENTRE, LINK_MOMENT
    theta_1, theta_2, speed_1, speed_2 = state.unbind(-1)
    cosine, sine = theta_2.cos(), theta_2.sin()
    d_1 = (
        m * centre**2 + m * (length**2 + centre**2 + 2 * length * centre * cosine) + moment + moment
    )
    d_2 = m * (centre**2 + length * centre * cosine) + moment
    phi_2 = m * centre * GRAVITY * (theta_1 + theta_2 - math.pi / 2).cos()
    phi_1 = (
        -m * length * centre * speed_2.square() * sine
        - 2 * m * length * centre * speed_2 * speed_1 * sine
        + (m * centre + m * length) * GRAVITY * (theta_1 - math.pi / 2).cos()
        + phi_2
    )
    acceleration_2 = (
        torque + d_2 / d_1 * phi_1 - m * length * centre * speed_1.square() * sine - phi_2
    ) / (m * centre**2 + moment - d_2.square() / d_1)
    acceleration_1 = -(d_2 * acceleration_2 + phi_1) / d_1
    return torch.stack((speed_1, speed_2, acceleration_1, acceleration_2), dim=-1)


def _wrap(angle: Tensor) -> Tensor:
    """The same direction from -pi to pi, both included."""
    turn = 2 * math.pi
    above = ((angle - math.pi) / turn).ceil().clamp(min=0.0)
    below = ((-math.pi - angle) / turn).ceil().clamp(min=0.0)
    return angle - turn * above + turn * below
