"""The memory of a learner's batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from engine.rollout import Arrays, Layout, Rollout, Samples


def side_by_side(layout: Layout, num_rollouts: int) -> Layout:
    """The layout of a batch of rollouts, side by side along the environment axis."""
    return Layout(layout.fields, layout.num_steps, layout.num_envs * num_rollouts)


def lay_side_by_side(arrays: Arrays, rollouts: Sequence[Rollout], layout: Layout) -> None:
    """Copies rollouts into a batch, which they fill.

    Args:
        arrays: The fields of the batch, [T, B, ...].
        rollouts: In order.
        layout: Of one rollout.
    """
    num_envs = layout.num_envs
    for i, rollout in enumerate(rollouts):
        for name, values in layout.views(rollout.buffer).items():
            arrays[name][:, i * num_envs : (i + 1) * num_envs] = values


class Staging:
    """A batch of several rollouts side by side along the environment axis, allocated once.

    Args:
        layout: Of one rollout.
        num_rollouts: How many make a batch.

    Attributes:
        tensors: The batch, zero until it is filled.
    """

    def __init__(self, layout: Layout, num_rollouts: int) -> None:
        self._rollout_layout = layout
        self._batch_layout = side_by_side(layout, num_rollouts)
        self._buffer = self._batch_layout.allocate()
        self._arrays = self._batch_layout.views(self._buffer)
        self.tensors = {name: torch.from_numpy(array) for name, array in self._arrays.items()}

    def fill(self, rollouts: Sequence[Rollout]) -> dict[str, torch.Tensor]:
        """Each field of the batch as [T, B, ...], copied; overwritten by the next call."""
        lay_side_by_side(self._arrays, rollouts, self._rollout_layout)
        return self.tensors


class SampleStaging:
    """Samples from replay as tensors, allocated once.

    Args:
        layout: Of drawn samples.

    Attributes:
        tensors: The samples, zero until they are filled in.
    """

    def __init__(self, layout: Layout) -> None:
        self._buffer = layout.allocate()
        views = layout.views(self._buffer)
        self.tensors = {name: torch.from_numpy(array) for name, array in views.items()}

    def fill(self, samples: Samples) -> dict[str, torch.Tensor]:
        """Each field of the samples as [N, ...], copied; overwritten by the next call."""
        np.copyto(self._buffer, samples.buffer)
        return self.tensors
