"""Pendulum-v1 on tensors: the dynamics of Gymnasium's.

States are float64 as there, torques and observations float32.
"""

from __future__ import annotations

import math

import gymnasium
import numpy as np
import torch
from torch import Tensor

from engine.envs.torch_batch import Moved, TorchBatch, centred

MASS, LENGTH = 1.0, 1.0
STEP_S = 0.05
MAX_SPEED, MAX_TORQUE = 8.0, 2.0
MAX_EPISODE_STEPS = 200
RESET_ANGLE, RESET_SPEED = math.pi, 1.0


class TorchPendulum(TorchBatch):
    """Copies of Pendulum-v1 that step together.

    Args:
        num_envs: B.
        device: Where all tensors live.
        g: Acceleration of gravity.

    Attributes:
        state: Angle from upright and angular speed, float64 [B, 2].
    """

    def __init__(self, num_envs: int, device: torch.device, g: float = 10.0) -> None:
        super().__init__(num_envs, 2, torch.float64, device, MAX_EPISODE_STEPS, 2)
        high = np.array([1.0, 1.0, MAX_SPEED], dtype=np.float32)
        self.single_observation_space = gymnasium.spaces.Box(-high, high, dtype=np.float32)
        self.single_action_space = gymnasium.spaces.Box(
            -MAX_TORQUE, MAX_TORQUE, shape=(1,), dtype=np.float32
        )
        self._gravity = g
        self._reset_range = torch.tensor(
            [RESET_ANGLE, RESET_SPEED], dtype=torch.float64, device=device
        )
        self._never = torch.zeros(num_envs, dtype=torch.bool, device=device)

    def _begin(self, drawn: Tensor) -> Tensor:
        return centred(drawn, self._reset_range)

    def _move(self, action: Tensor, drawn: Tensor) -> Moved:
        angle, speed = self.state.unbind(-1)
        torque = action[:, 0].clamp(-MAX_TORQUE, MAX_TORQUE)
        cost = _normalized(angle).square() + 0.1 * speed.square() + 0.001 * torque.square()
        pull = 3 * self._gravity / (2 * LENGTH) * angle.sin() + 3.0 / (MASS * LENGTH**2) * torque
        speed = (speed + pull * STEP_S).clamp(-MAX_SPEED, MAX_SPEED)
        return torch.stack((angle + speed * STEP_S, speed), dim=-1), -cost, self._never

    def _observe(self) -> Tensor:
        angle, speed = self.state.unbind(-1)
        return torch.stack((angle.cos(), angle.sin(), speed), dim=-1).to(torch.float32)


def _normalized(angle: Tensor) -> Tensor:
    """The same direction, from -pi to less than pi."""
    return (angle + math.pi).remainder(2 * math.pi) - math.pi
