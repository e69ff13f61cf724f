"""Actions of environments whose states are tensors on one device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor

from engine.envs.actions.choices import Choices, choices_of
from engine.envs.actions.scale import Array, plain_range, scale_of
from engine.spaces.action_parts import leaf_columns
from engine.spaces.leaves import AnySpace, LeafSpace, Structure, structure_of


class TensorRange:
    """Converts units of a range to values like `RangedActions`, for tensors on a device.

    Args:
        space: Of one action.
        device: Where actions are.
        scales: As in `scale_of`.

    Raises:
        ConfigError: It is one that cannot be supported.
    """

    def __init__(
        self, space: gymnasium.spaces.Box, device: torch.device, scales: bool = True
    ) -> None:
        self._of = scale = scale_of(space, scales)
        self._dtype = _torch_dtype(scale.dtype)

        def there(values: Array) -> Tensor:
            return torch.from_numpy(values).to(device)

        self._least, self._most = there(scale.least), there(scale.most)
        self._scale, self._shift = there(scale.scale), there(scale.shift)
        self._low, self._high = there(scale.low), there(scale.high)
        self._base, self._last = there(scale.base), there(scale.last)
        self._plain: tuple[Tensor, ...] | None = None
        if scales and (plain := plain_range(space)) is not None:
            self._plain = tuple(there(values) for values in plain.arrays)

    def __call__(self, action: Tensor) -> Tensor:
        """[B, ...] -> [B, *shape of the space], in its dtype."""
        shape = (action.shape[0], *self._of.shape)
        if self._plain is not None:
            middle, half_range, low, high = self._plain
            a = action.to(torch.float32).reshape(action.shape[0], -1).clamp(-1.0, 1.0)
            return (middle + half_range * a).clamp(low, high).view(shape)
        a = action.to(torch.float64).reshape(action.shape[0], -1).clamp(self._least, self._most)
        values = self._shift + self._scale * a
        if not self._of.is_whole:
            values = torch.where(a <= self._least, self._low, values)
            values = torch.where(a >= self._most, self._high, values)
            return values.clamp(self._low, self._high).to(self._dtype).view(shape)
        offset = values.floor().clamp(self._low, self._high)
        half = (offset / 2).floor()
        whole = half.to(torch.int64) * 2 + (offset - 2 * half).to(torch.int64) + self._base
        whole = whole + (a >= self._most) * self._last
        return whole.to(self._dtype).view(shape)


class TensorActions:
    """Converts flat actions on a device to what an environment declares, as
    `engine.envs.actions.vector.StructuredActions` does.

    Args:
        space: Of one environment.
        device: Where actions are.
        scales: Whether reals are scaled.

    Raises:
        ConfigError: It is one that cannot be supported.
    """

    def __init__(self, space: AnySpace, device: torch.device, scales: bool = True) -> None:
        self._space = space
        self._leaves = tuple(
            (columns, _converter(leaf, device, scales)) for leaf, columns in leaf_columns(space)
        )

    def __call__(self, action: Tensor) -> Structure:
        """[B] or [B, K + D] -> a tensor [B, *shape] for each leaf: alone, or in the dicts and
        tuples of the space."""
        rows = action.reshape(action.shape[0], -1)
        values = [convert(rows[:, columns]) for columns, convert in self._leaves]
        return structure_of(self._space, iter(values))


class TensorChoices:
    """Converts choices like `Choices`, for tensors on a device."""

    def __init__(self, choices: Choices, device: torch.device) -> None:
        self._start = torch.from_numpy(choices.start).to(device)
        self._dtype = _torch_dtype(choices.dtype)
        self._shape = choices.shape

    def __call__(self, action: Tensor) -> Tensor:
        """Whole numbers [B, K], possibly as floats, to [B, *shape]."""
        values = (action.to(torch.int64) + self._start).to(self._dtype)
        return values.view(action.shape[0], *self._shape)


def _converter(space: LeafSpace, device: torch.device, scales: bool) -> Callable[[Tensor], Tensor]:
    if isinstance(space, gymnasium.spaces.Box):
        return TensorRange(space, device, scales)
    return TensorChoices(choices_of(space), device)


def _torch_dtype(dtype: np.dtype[Any]) -> torch.dtype:
    return torch.from_numpy(np.empty(0, dtype)).dtype
