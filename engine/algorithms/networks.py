"""Function approximators."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from engine.spec import NetworkSpec

_ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU}


def mlp(num_inputs: int, num_outputs: int, spec: NetworkSpec, output_gain: float) -> nn.Sequential:
    """A multi-layer perceptron with orthogonal initialisation (Saxe et al., 2014).

    Args:
        num_inputs: Size of the flattened observation.
        num_outputs: Size of the last layer.
        spec: Hidden sizes and activation.
        output_gain: Gain of the last layer; small for policies, so that they begin undecided
            (Andrychowicz et al., 2021).

    Returns:
        [B, num_inputs] -> [B, num_outputs].
    """
    layers: list[nn.Module] = []
    sizes = [num_inputs, *spec.hidden_sizes]
    for fan_in, fan_out in itertools.pairwise(sizes):
        layers += [_linear(fan_in, fan_out, math.sqrt(2.0)), _ACTIVATIONS[spec.activation]()]
    return nn.Sequential(*layers, _linear(sizes[-1], num_outputs, output_gain))


def _linear(fan_in: int, fan_out: int, gain: float) -> nn.Linear:
    layer = nn.Linear(fan_in, fan_out)
    nn.init.orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer


class PolicyValueNetwork(nn.Module):
    """Policy logits and state value from two separate trunks.

    Args:
        observation_shape: Of one observation; flattened on entry.
        num_actions: Discrete actions.
        spec: The trunks.
    """

    def __init__(
        self, observation_shape: Sequence[int], num_actions: int, spec: NetworkSpec
    ) -> None:
        super().__init__()
        self._num_inputs = math.prod(observation_shape)
        self.policy = mlp(self._num_inputs, num_actions, spec, output_gain=0.01)
        self.value = mlp(self._num_inputs, 1, spec, output_gain=1.0)

    def logits(self, observation: Tensor) -> Tensor:
        """[N, ...] -> [N, num_actions]."""
        logits: Tensor = self.policy(self._flat(observation))
        return logits

    def values(self, observation: Tensor) -> Tensor:
        """[N, ...] -> [N]."""
        values: Tensor = self.value(self._flat(observation))
        return values.squeeze(-1)

    def _flat(self, observation: Tensor) -> Tensor:
        return observation.reshape(-1, self._num_inputs).to(torch.float32)
