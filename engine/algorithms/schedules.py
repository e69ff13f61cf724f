"""Hyperparameters that change during training, as functions of its progress.

A compiled step contains numbers that never change. What changes is an argument of it: the learning
rate, or an array beside the samples with the same number for each of them.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from engine.spec import Spec


def linear(initial: float, final: float | None, progress: float) -> float:
    """The value at `progress`, in [0, 1], on the way from `initial` to `final`; without the latter
    always the former."""
    return initial if final is None else initial + progress * (final - initial)


def factor(initial: float, final: float | None, progress: float) -> float:
    """What `initial`, a learning rate, is multiplied by at `progress`; exactly 1 if constant."""
    return linear(initial, final, progress) / initial


def beside(samples: Tensor, values: Mapping[str, float]) -> dict[str, Tensor]:
    """Numbers as samples: of each an array like `samples`, filled with it."""
    return {name: torch.full_like(samples, value) for name, value in values.items()}


def set_keys(config: Spec, *keys: str) -> tuple[str, ...]:
    """Those of a configuration's keys that are not `null`."""
    return tuple(key for key in keys if getattr(config, key) is not None)
