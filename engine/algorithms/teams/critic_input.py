"""What a central critic makes of an array: a vector of real numbers."""

from __future__ import annotations

import torch
from gymnasium import spaces
from torch import Tensor

from engine.algorithms.observation_input import CountedInput
from engine.layers.encoders import OneHot, nvec_of
from engine.spaces.leaves import LeafSpace


def numbers(values: Tensor, space: LeafSpace) -> Tensor:
    """Values of a leaf, [..., *shape], as a vector of real numbers, float32 [..., D].

    Bytes become [0, 1], and each choice of a Discrete or MultiDiscrete an entry that is 1 where it
    is taken.
    """
    lead = values.ndim - len(space.shape or ())
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        counted = CountedInput(space)(values.flatten(0, lead - 1))
        one_hot: Tensor = OneHot(nvec_of(space))(counted)
        return one_hot.view(*values.shape[:lead], one_hot.shape[-1])
    flat = values.flatten(lead) if values.ndim > lead else values.unsqueeze(-1)
    if flat.is_floating_point():
        return flat
    return flat.to(torch.float32) * (1 / 255 if values.dtype == torch.uint8 else 1.0)
