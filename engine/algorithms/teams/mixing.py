"""Mixers: from the values of all agents to that of the team, Q_tot(s, u) of q_i(o_i, u_i).

A mixer depends on the state only through weights, one vector for each state. Those of a target
network can so be computed before the loss knows which actions it values.

If Q_tot rises with each q_i, the best joint action is the best action of each agent.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from engine.algorithms.observation_input import ObservationInput
from engine.algorithms.replicas import ReplicaGroup
from engine.spec import NetworkSpec


class Mixer(nn.Module, ABC):
    """Values of agents to a value of the team."""

    @abstractmethod
    def weights(self, state: Tensor) -> Tensor:
        """The weights in states, float32 [..., D] -> [..., W]."""

    @abstractmethod
    def mix(self, values: Tensor, weights: Tensor) -> Tensor:
        """Q_tot, [...], of the agents' values [..., agents] and weights [..., W]."""

    @abstractmethod
    def learn(self, state: Tensor, replicas: ReplicaGroup) -> None:
        """Merges states [N, D] into the statistics of inputs, if they are normalised."""


class SumMixer(Mixer):
    """The sum of all values (Sunehag et al., 2018, equation 2): every weight is one.

    Args:
        num_agents: Values of a team.
    """

    def __init__(self, num_agents: int) -> None:
        super().__init__()
        self._num_agents = num_agents

    def weights(self, state: Tensor) -> Tensor:
        """See `Mixer`."""
        return state.new_ones(*state.shape[:-1], self._num_agents)

    def mix(self, values: Tensor, weights: Tensor) -> Tensor:
        """See `Mixer`."""
        assert values.shape == weights.shape, (values.shape, weights.shape)
        return (values * weights).sum(-1)

    def learn(self, state: Tensor, replicas: ReplicaGroup) -> None:
        """A sum depends on no state."""


class MonotoneMixer(Mixer):
    """A network of one hidden layer whose weights another network makes from the state, and which
    are never negative (Rashid et al., 2018, section 4.1 and figure 2).

        Q_tot = |w_2(s)| . elu(|W_1(s)| q + b_1(s)) + b_2(s)

    Args:
        num_agents: Values of a team.
        state_size: D.
        size: Units of the hidden layer.
        hypernetwork_size: Hidden units of the networks that make W_1 and w_2; None: they are
            linear, as in the paper of 2018.
        spec: Whether states are normalised.
    """

    def __init__(
        self,
        num_agents: int,
        state_size: int,
        size: int,
        hypernetwork_size: int | None,
        spec: NetworkSpec,
    ) -> None:
        super().__init__()
        self._num_agents, self._size = num_agents, size
        normalizes, limit = spec.normalize_observation, spec.observation_limit
        self.input = ObservationInput((state_size,), "float32", normalizes, limit=limit)
        self.first = _hypernetwork(state_size, hypernetwork_size, num_agents * size)
        self.first_bias = nn.Linear(state_size, size)
        self.second = _hypernetwork(state_size, hypernetwork_size, size)
        self.second_bias = _hypernetwork(state_size, size, 1)

    def weights(self, state: Tensor) -> Tensor:
        """See `Mixer`; W_1, b_1, w_2 and b_2 one after the other."""
        scaled = self.input(state.flatten(0, -2))
        parts = (
            self.first(scaled).abs(),
            self.first_bias(scaled),
            self.second(scaled).abs(),
            self.second_bias(scaled),
        )
        weights = torch.cat(parts, -1)
        return weights.view(*state.shape[:-1], weights.shape[-1])

    def mix(self, values: Tensor, weights: Tensor) -> Tensor:
        """See `Mixer`."""
        num_agents, size = self._num_agents, self._size
        assert values.shape == (*weights.shape[:-1], num_agents), (values.shape, weights.shape)
        first, bias, second, last = torch.split(weights, [num_agents * size, size, size, 1], -1)
        first = first.view(*weights.shape[:-1], num_agents, size)
        hidden = nn.functional.elu((values.unsqueeze(-1) * first).sum(-2) + bias)
        total: Tensor = (hidden * second).sum(-1) + last.squeeze(-1)
        return total

    def learn(self, state: Tensor, replicas: ReplicaGroup) -> None:
        """See `Mixer`."""
        self.input.learn(state, replicas)


def _hypernetwork(num_inputs: int, hidden: int | None, num_outputs: int) -> nn.Module:
    """From a state to weights."""
    if hidden is None:
        return nn.Linear(num_inputs, num_outputs)
    return nn.Sequential(nn.Linear(num_inputs, hidden), nn.ReLU(), nn.Linear(hidden, num_outputs))
