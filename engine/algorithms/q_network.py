"""The network of Q-learning: a trunk, one or two heads, and the epsilon to explore with."""

from __future__ import annotations

import gymnasium
import torch
from torch import Tensor, nn

from engine.algorithms.networks import observation_input
from engine.algorithms.trunks import build_trunk, linear
from engine.spec import NetworkSpec


class QNetwork(nn.Module):
    """Action values, and the epsilon for exploration.

    Args:
        observation: Space of one observation.
        num_actions: Discrete actions.
        spec: The trunk.
        dueling: Whether to add up a state value and centred advantages (Wang et al., equation 9).
    """

    def __init__(
        self,
        observation: gymnasium.spaces.Box,
        num_actions: int,
        spec: NetworkSpec,
        dueling: bool,
    ) -> None:
        super().__init__()
        self.input = observation_input(observation, spec)
        self.trunk, num_features = build_trunk(observation.shape, spec)
        self.advantage = linear(num_features, num_actions, 1.0)
        self.value = linear(num_features, 1, 1.0) if dueling else None
        self.epsilon = nn.Parameter(torch.ones(()), requires_grad=False)

    def forward(self, observation: Tensor) -> Tensor:
        """q(s, .), [N, num_actions], of [N, ...] observations."""
        features = self.trunk(self.input(observation))
        advantage: Tensor = self.advantage(features)
        if self.value is None:
            return advantage
        value: Tensor = self.value(features)
        return value + advantage - advantage.mean(-1, keepdim=True)
