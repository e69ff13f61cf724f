"""What oracles of SAC and TD3 have in common: networks and Adam in float64, from their formulas."""

from __future__ import annotations

from collections.abc import Mapping

import gymnasium
import numpy as np
import torch
from torch import Tensor

from engine.algorithms.base import LearnerState, Spaces
from engine.algorithms.critics.continuous_control import ContinuousControl

Parameters = dict[str, Tensor]
SPACES = Spaces(
    gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float32),
    gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32),
)


def named64(tensors: Mapping[str, Tensor]) -> Parameters:
    """Copies in float64."""
    return {name: tensor.detach().double().clone() for name, tensor in tensors.items()}


def of_state(state: LearnerState) -> tuple[Parameters, Parameters]:
    """The parameters of a learner's networks: of what learns, and of what follows it."""
    assert state.target is not None
    learns = {n: p for n, p in state.network.named_parameters() if p.requires_grad}
    own = {name: values.requires_grad_() for name, values in named64(learns).items()}
    return own, named64(dict(state.target.network.named_parameters()))


def policy64(parameters: Parameters, observation: Tensor) -> Tensor:
    """Outputs of a policy with two hidden layers of relu."""
    x = observation
    for number in (1, 3):
        name = f"policy_trunk.{number}"
        x = torch.relu(x @ parameters[f"{name}.weight"].T + parameters[f"{name}.bias"])
    return x @ parameters["policy_head.weight"].T + parameters["policy_head.bias"]


def critics64(parameters: Parameters, observation: Tensor, action: Tensor) -> list[Tensor]:
    """Each critic by itself, [N]."""
    values = []
    for critic in range(len(parameters["critics.head.weight"])):
        x = torch.cat((observation, action), -1)
        for number in (0, 2):
            weight = parameters[f"critics.hidden.{number}.weight"][critic]
            x = torch.relu(x @ weight + parameters[f"critics.hidden.{number}.bias"][critic])
        head = parameters["critics.head.weight"][critic]
        values.append((x @ head + parameters["critics.head.bias"][critic]).squeeze(-1))
    return values


class Adam64:
    """Adam (Kingma & Ba, 2015, algorithm 1), each parameter with a count of its own steps."""

    def __init__(self, learning_rate: float) -> None:
        self._learning_rate = learning_rate
        self._moments: dict[str, tuple[Tensor, Tensor, int]] = {}

    def step(self, loss: Tensor | int, parameters: Parameters, *prefixes: str) -> None:
        """Moves the parameters whose names begin so, in place."""
        assert isinstance(loss, Tensor)
        names = [name for name in parameters if name.startswith(prefixes)]
        gradients = torch.autograd.grad(loss, [parameters[name] for name in names])
        for name, gradient in zip(names, gradients, strict=True):
            zero = torch.zeros_like(gradient)
            mean, variance, count = self._moments.get(name, (zero, zero, 0))
            mean, variance = 0.9 * mean + 0.1 * gradient, 0.999 * variance + 0.001 * gradient**2
            count += 1
            self._moments[name] = mean, variance, count
            of_mean, of_variance = mean / (1 - 0.9**count), variance / (1 - 0.999**count)
            moved = parameters[name] - self._learning_rate * of_mean / (of_variance.sqrt() + 1e-8)
            parameters[name] = moved.detach().requires_grad_()


def random_batch(algorithm: ContinuousControl, seed: int) -> dict[str, Tensor]:
    """Samples as a store gives them, some of them after termination."""
    request = algorithm.samples().replay
    assert request is not None
    shape = (request.updates_per_batch, request.batch_size)
    generator = torch.Generator().manual_seed(seed)
    discount = torch.full(shape, 0.9)
    discount[:, ::3] = 0.0
    return {
        "observation": torch.randn(*shape, 3, generator=generator),
        "next_observation": torch.randn(*shape, 3, generator=generator),
        "action": 2 * torch.rand(*shape, 2, generator=generator) - 1,
        "reward": torch.randn(shape, generator=generator),
        "discount": discount,
        "weight": torch.ones(shape),
    }
