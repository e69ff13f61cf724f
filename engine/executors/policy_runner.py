"""Acts with a trained network in a number of environments, outside of training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from engine.algorithms.base import Algorithm, EnvSlice
from engine.devices.visible import CPU
from engine.envs.observed import Arrays
from engine.layers.inputs import STATE, Inputs, input_names
from engine.rollout import Field

Choose: TypeAlias = Callable[[nn.Module, Inputs], Tensor | Mapping[str, Tensor]]
"""Flat actions [B, ...]; with a memory `action` and `state` by name."""


class PolicyRunner:
    """Chooses flat actions, and keeps what a network with a memory remembers.

    Args:
        choose: `Algorithm.act_greedily`, or another way (`sampling`).
        network: Of the algorithm.
        fields: Of a rollout.
        num_envs: B.
        place: The device of the network.

    Attributes:
        choose: Can be replaced between steps.
    """

    def __init__(
        self,
        choose: Choose,
        network: nn.Module,
        fields: Sequence[Field],
        num_envs: int,
        place: torch.device | None = None,
    ) -> None:
        self.choose = choose
        self._network = network
        self._place = place or torch.device(CPU)
        names = input_names(fields)
        by_name = {field.name: field for field in fields}
        self._observed = [by_name[name] for name in names if name != STATE]
        self._state: Tensor | None = None
        if STATE in names:
            self._state = torch.zeros(num_envs, *by_name[STATE].shape, device=self._place)

    @property
    def is_recurrent(self) -> bool:
        return self._state is not None

    def reset(self, starts: npt.NDArray[np.bool_] | None = None) -> None:
        """Forgets everything, or only in environments where an episode starts, bool [B]."""
        if self._state is None:
            return
        if starts is None:
            self._state = torch.zeros_like(self._state)
        elif starts.any():
            continues = torch.from_numpy(~starts).to(self._place)
            self._state = self._state * continues.unsqueeze(1)

    def act(
        self, arrays: Arrays, starts: npt.NDArray[np.bool_] | None = None
    ) -> npt.NDArray[np.generic]:
        """Chooses the actions of one step.

        Args:
            arrays: Leaves and mask by field, each [B, ...], as `Observed.arrays` returns them.
            starts: Environments that begin an episode with it, bool [B].

        Returns:
            Flat actions [B, ...], with the dtype of the field `action`.
        """
        if starts is not None:
            self.reset(starts)
        with torch.inference_mode():
            chosen = self.choose(self._network, self._inputs(arrays))
        if isinstance(chosen, Tensor):
            return chosen.cpu().numpy()
        if self._state is not None:
            self._state = chosen[STATE]
        return chosen["action"].cpu().numpy()

    def _inputs(self, arrays: Arrays) -> Inputs:
        given = {
            field.name: torch.from_numpy(np.ascontiguousarray(arrays[field.name], field.dtype)).to(
                self._place
            )
            for field in self._observed
        }
        if self._state is not None:
            given[STATE] = self._state
        return next(iter(given.values())) if len(given) == 1 else given


def sampling(algorithm: Algorithm, generator: torch.Generator) -> Choose:
    """Chooses as actors do in training, exploration included.

    Args:
        algorithm: Whose `act` it is.
        generator: Source of randomness.
    """

    def choose(network: nn.Module, inputs: Inputs) -> Mapping[str, Tensor]:
        first = inputs if isinstance(inputs, Tensor) else next(iter(inputs.values()))
        env_slice = EnvSlice(0, len(first), len(first))
        return algorithm.act(network, inputs, algorithm.noise(generator, 1, env_slice)[0])

    return choose
