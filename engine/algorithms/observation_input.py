"""The input layer of a network: scales observations, and normalises them if asked to.

Observations are sent and stored as the environment returns them: unsigned bytes become [0, 1] here,
everything else float32. If normalised, they are also centred and divided by their standard
deviation. These running statistics are parameters that no gradient reaches: they are sent with the
weights and have their version, so an actor normalises with exactly the statistics of the policy
that it uses.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from engine.algorithms.replicas import SINGLE_REPLICA, ReplicaGroup
from engine.algorithms.statistics import RunningStatistics
from engine.layers.encoders import encoded_leaves, is_normalized, lone_box, passes_bytes
from engine.layers.inputs import Observation
from engine.layers.trunks import takes_bytes
from engine.spaces.leaves import AnySpace, Leaf, LeafSpace
from engine.spaces.observations import OBSERVATION, observation_leaves
from engine.spec import NetworkSpec


class ObservationInput(nn.Module):
    """Scales observations, and normalises them if asked to.

    Args:
        shape: Of one observation.
        dtype: NumPy name of its element type.
        normalizes: Whether to keep running statistics.
        passes_bytes: Whether the trunk takes unscaled bytes, if they are not normalised.
        limit: Of normalised observations, in standard deviations from their mean; None: none.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        dtype: str,
        normalizes: bool,
        passes_bytes: bool = False,
        limit: float | None = None,
    ) -> None:
        super().__init__()
        self.limit = limit
        self._passes_bytes = passes_bytes and dtype == "uint8" and not normalizes
        self._shape = shape
        self.scale = 1 / 255 if dtype == "uint8" else 1.0
        self.statistics = RunningStatistics(shape) if normalizes else None

    def forward(self, observation: Tensor) -> Tensor:
        """[N, ...] -> float32 [N, ...], or unscaled bytes."""
        assert observation.shape[1:] == self._shape, observation.shape
        if self._passes_bytes:
            return observation
        scaled = self._scaled(observation)
        if self.statistics is None:
            return scaled
        deviations = (scaled - self.statistics.mean) * self.statistics.inverse_deviation
        return deviations if self.limit is None else deviations.clamp(-self.limit, self.limit)

    @property
    def normalizes(self) -> bool:
        return self.statistics is not None

    def learn(self, observation: Observation, replicas: ReplicaGroup = SINGLE_REPLICA) -> None:
        """Merges observations [N, ...] into the statistics; `replicas` have the other shares."""
        if self.statistics is not None:
            assert isinstance(observation, Tensor)
            self.statistics.learn(self._scaled(observation), replicas)

    def _scaled(self, observation: Tensor) -> Tensor:
        if observation.is_floating_point():
            return observation
        values = observation.to(torch.float32)  # a new tensor, so it may be written to
        return values if self.scale == 1.0 else values.mul_(self.scale)


class CountedInput(nn.Module):
    """Discrete values, counted from 0: whole numbers [N, ...] of a Discrete or MultiDiscrete.

    Args:
        space: Whose values they are.
    """

    normalizes = False

    def __init__(self, space: spaces.Discrete | spaces.MultiDiscrete) -> None:
        super().__init__()
        start = np.asarray(space.start)
        is_equal = start.size == 0 or bool((start == start.flat[0]).all())
        self.start: int | list[int] = int(start.flat[0]) if is_equal else start.ravel().tolist()

    def forward(self, values: Tensor) -> Tensor:
        """Whole numbers [N, ...] -> int64 [N, K], K the number of entries."""
        counted = values.to(torch.int64)
        flat = counted.flatten(1) if counted.ndim > 1 else counted.unsqueeze(1)
        if isinstance(self.start, int):
            return flat - self.start if self.start else flat
        columns = zip(flat.unbind(1), self.start, strict=True)
        return torch.stack([column - start for column, start in columns], dim=1)


class LeafInputs(nn.Module):
    """The input layers of an observation with several leaves, or of one that is no Box.

    Args:
        leaves: By the name of their field.
        normalizes: Names of the leaves to normalise; only Boxes.
        passes_bytes: Names of the leaves whose encoder takes unscaled bytes.
        limit: Of normalised leaves, as in `ObservationInput`.
    """

    def __init__(
        self,
        leaves: Mapping[str, Leaf],
        normalizes: set[str],
        passes_bytes: set[str],
        limit: float | None,
    ) -> None:
        super().__init__()
        self._names = [name.removeprefix(f"{OBSERVATION}.") for name in leaves]
        self.layers = nn.ModuleList(
            _input_of(leaf.space, name in normalizes, name in passes_bytes, limit)
            for name, leaf in leaves.items()
        )

    def forward(self, observation: Observation) -> list[Tensor]:
        """Leaves [N, ...] -> what the encoder of each takes, in their order."""
        layers = zip(self.layers, self._values(observation), strict=True)
        return [layer(values) for layer, values in layers]

    @property
    def normalizes(self) -> bool:
        return any(layer.normalizes for layer in self.layers)

    def learn(self, observation: Observation, replicas: ReplicaGroup = SINGLE_REPLICA) -> None:
        """Merges observations [N, ...] into the statistics; `replicas` have the other shares."""
        for layer, values in zip(self.layers, self._values(observation), strict=True):
            if isinstance(layer, ObservationInput):
                layer.learn(values, replicas)

    def _values(self, observation: Observation) -> list[Tensor]:
        if isinstance(observation, Tensor):
            return [observation]
        return [observation[name] for name in self._names]


def _input_of(
    space: LeafSpace, normalizes: bool, passes_bytes: bool, limit: float | None
) -> nn.Module:
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        return CountedInput(space)
    return ObservationInput(space.shape, str(space.dtype), normalizes, passes_bytes, limit)


def build_input(space: AnySpace, spec: NetworkSpec) -> ObservationInput | LeafInputs:
    """The input layer of a network, before its trunks.

    Raises:
        ConfigError: See `encoded_leaves`.
    """
    leaves = observation_leaves(space)
    if (box := lone_box(leaves)) is not None:
        in_bytes = takes_bytes(box.shape, spec)
        normalizes, limit = spec.normalize_observation, spec.observation_limit
        return ObservationInput(box.shape, str(box.dtype), normalizes, in_bytes, limit)
    encoded = dict(zip(leaves, encoded_leaves(space, spec), strict=True))
    return LeafInputs(
        leaves,
        {name for name, leaf in encoded.items() if is_normalized(leaf, spec)},
        {name for name, leaf in encoded.items() if passes_bytes(leaf, spec)},
        spec.observation_limit,
    )
