"""The network of Q-learning: a trunk, one or two heads, and the epsilon to explore with."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from engine.algorithms.inputs import Observation
from engine.algorithms.observation_input import build_input
from engine.layers.encoders import build_features
from engine.layers.trunks import linear
from engine.spaces.leaves import AnySpace
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
        observation: AnySpace,
        num_actions: int,
        spec: NetworkSpec,
        dueling: bool,
    ) -> None:
        super().__init__()
        self.input = build_input(observation, spec)
        self.trunk, num_features = build_features(observation, spec)
        self.advantage = linear(num_features, num_actions, 1.0)
        self.value = linear(num_features, 1, 1.0) if dueling else None
        self.epsilon = nn.Parameter(torch.ones(()), requires_grad=False)

    def forward(self, observation: Observation) -> Tensor:
        """q(s, .), [N, num_actions], of [N, ...] observations."""
        features = self.trunk(self.input(observation))
        advantage: Tensor = self.advantage(features)
        if self.value is None:
            return advantage
        value: Tensor = self.value(features)
        return value + advantage - advantage.mean(-1, keepdim=True)
