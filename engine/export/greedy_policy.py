"""From what an environment returns to the action that it takes, as one function of tensors."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from engine.devices.visible import CPU
from engine.envs.actions.squash import TensorSquash
from engine.envs.actions.tensors import TensorActions
from engine.export.ports import Ports, ports_of
from engine.layers.inputs import STATE, input_names
from engine.spaces.leaves import leaf_values
from engine.trained.load import Trained


class GreedyPolicy(nn.Module):
    """Chooses the best known actions: normalises what it is given, and scales what it chooses.

    Args:
        trained: The network, and the algorithm that acts with it.

    Attributes:
        network: With the names of its parameters.
        ports: The inputs and outputs of `forward`, in order.
    """

    def __init__(self, trained: Trained) -> None:
        super().__init__()
        self.network = trained.network
        self.ports: Ports = ports_of(trained)
        self._algorithm = trained.algorithm
        by_name = {field.name: field.dtype for field in trained.fields}
        self._is_plain = len(input_names(trained.fields)) == 1
        self._dtypes = [torch_dtype(by_name[port.name]) for port in self.ports.inputs]
        device, self._space = torch.device(CPU), trained.action_space
        env = trained.experiment.env
        self._squash = TensorSquash(self._space, device) if env.squash_actions else None
        self._structure = TensorActions(self._space, device, env.scale_actions)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """A step of B environments.

        Args:
            inputs: In the order of `ports.inputs`, each [B, *shape], in its dtype.

        Returns:
            In the order of `ports.outputs`, each [B, *shape], in its dtype.
        """
        named = zip(self.ports.inputs, inputs, self._dtypes, strict=True)
        given = {port.name: values.to(dtype) for port, values, dtype in named}
        only = next(iter(given.values()))
        chosen = self._algorithm.act_greedily(self.network, only if self._is_plain else given)
        action = chosen if isinstance(chosen, Tensor) else chosen["action"]
        if self._squash is not None:
            action = self._squash(action)
        leaves = leaf_values(self._space, self._structure(action))
        if self.ports.state is None:
            return tuple(leaves)
        assert not isinstance(chosen, Tensor)
        return (*leaves, chosen[STATE])


def torch_dtype(name: str) -> torch.dtype:
    """The dtype of a NumPy name."""
    return torch.from_numpy(np.empty(0, name)).dtype


def to_tensor(values: np.ndarray) -> Tensor:
    """A tensor with the values and dtype of an array, in its own memory."""
    return torch.from_numpy(np.array(values, order="C"))
