"""The common part of tensor environments: one tensor of states, and when its rows restart."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TypeAlias

import gymnasium
import torch
from torch import Tensor

Moved: TypeAlias = tuple[Tensor, Tensor, Tensor]
"""The next states [B, N], rewards float32 [B], and which episodes terminate, bool [B]."""


class TorchBatch(ABC):
    """Copies of an environment that step together and restart in next-step mode.

    No value is read from the device, so there is no synchronization.

    Args:
        num_envs: B.
        num_values: N, of one state.
        dtype: Of states.
        device: Where all tensors live.
        max_episode_steps: Longer episodes are truncated.

    Attributes:
        state: [B, N].
    """

    single_observation_space: gymnasium.spaces.Box
    single_action_space: gymnasium.Space[object]

    def __init__(
        self,
        num_envs: int,
        num_values: int,
        dtype: torch.dtype,
        device: torch.device,
        max_episode_steps: int,
    ) -> None:
        self._max_episode_steps = max_episode_steps
        self._generator = torch.Generator(device=device)
        self.state = torch.zeros((num_envs, num_values), dtype=dtype, device=device)
        self._age = torch.zeros(num_envs, dtype=torch.int64, device=device)
        self._has_ended = torch.zeros(num_envs, dtype=torch.bool, device=device)

    @abstractmethod
    def _begin(self) -> Tensor:
        """Initial states of episodes, [B, N]."""

    @abstractmethod
    def _move(self, action: Tensor) -> Moved:
        """One step from `state`, with actions [B, ...]."""

    @abstractmethod
    def _observe(self) -> Tensor:
        """The observations of `state`, [B, ...]."""

    def reset(self, seed: int) -> Tensor:
        """See `TorchEnvironment`."""
        self._generator.manual_seed(seed)
        self.state = torch.zeros_like(self.state)
        self.state = self._begin()
        self._age = torch.zeros_like(self._age)
        self._has_ended = torch.zeros_like(self._has_ended)
        return self._observe()

    def step(self, action: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """See `TorchEnvironment`; copies whose episode has ended reset."""
        resets = self._has_ended
        moved, reward, has_terminated = self._move(action)
        self.state = torch.where(resets.unsqueeze(-1), self._begin(), moved)
        self._age = torch.where(resets, 0, self._age + 1)
        goes_on = ~resets
        terminated = has_terminated & goes_on
        truncated = (self._age >= self._max_episode_steps) & goes_on
        self._has_ended = terminated | truncated
        return self._observe(), (reward * goes_on).to(torch.float32), terminated, truncated

    def _uniform(self, high: float | Tensor) -> Tensor:
        """Uniform in [-high, high), with shape and dtype of `state`."""
        drawn = torch.rand(
            self.state.shape,
            dtype=self.state.dtype,
            device=self.state.device,
            generator=self._generator,
        )
        return (2 * drawn - 1) * high
