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

    No value is read from the device, so there is no synchronization. It is a `DrawnEnvironment`.

    Args:
        num_envs: B.
        num_values: N, of one state.
        dtype: Of states.
        device: Where all tensors live.
        max_episode_steps: Longer episodes are truncated.
        num_drawn: D, random numbers of one step.

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
        num_drawn: int,
    ) -> None:
        self._num_drawn = num_drawn
        self._of_draws = dtype if dtype.is_floating_point else torch.float32
        self._max_episode_steps = max_episode_steps
        self._generator = torch.Generator(device=device)
        self.state = torch.zeros((num_envs, num_values), dtype=dtype, device=device)
        self._age = torch.zeros(num_envs, dtype=torch.int64, device=device)
        self._has_ended = torch.zeros(num_envs, dtype=torch.bool, device=device)

    @abstractmethod
    def _begin(self, drawn: Tensor) -> Tensor:
        """Initial states of episodes, [B, N], from a row of `draw`."""

    @abstractmethod
    def _move(self, action: Tensor, drawn: Tensor) -> Moved:
        """One step from `state`, with actions [B, ...], and a row of `draw`."""

    @abstractmethod
    def _observe(self) -> Tensor:
        """The observations of `state`, [B, ...]."""

    def reset(self, seed: int) -> Tensor:
        """See `TorchEnvironment`."""
        self._generator.manual_seed(seed)
        self.state = torch.zeros_like(self.state)
        self.state = self._begin(self.draw(1)[0])
        self._age = torch.zeros_like(self._age)
        self._has_ended = torch.zeros_like(self._has_ended)
        return self._observe()

    def draw(self, num_steps: int) -> Tensor:
        """Uniform in [0, 1), [T, B, D]; see `DrawnEnvironment`."""
        shape = (num_steps, len(self.state), self._num_drawn)
        return torch.rand(
            shape, dtype=self._of_draws, device=self.state.device, generator=self._generator
        )

    def step(self, action: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """See `TorchEnvironment`; copies whose episode has ended reset."""
        return self.step_with(action, self.draw(1)[0])

    def step_with(self, action: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """See `DrawnEnvironment`."""
        resets = self._has_ended
        moved, reward, has_terminated = self._move(action, drawn)
        self.state = torch.where(resets.unsqueeze(-1), self._begin(drawn), moved)
        self._age = torch.where(resets, 0, self._age + 1)
        goes_on = ~resets
        terminated = has_terminated & goes_on
        truncated = (self._age >= self._max_episode_steps) & goes_on
        self._has_ended = terminated | truncated
        return self._observe(), (reward * goes_on).to(torch.float32), terminated, truncated


def centred(drawn: Tensor, high: float | Tensor) -> Tensor:
    """What is uniform in [0, 1), in [-high, high)."""
    return (2 * drawn - 1) * high
