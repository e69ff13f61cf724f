"""Encoders: from one leaf of an observation to features, chosen by the leaf's kind.

A network for several leaves is an encoder for each, and an `mlp` on their concatenation:

    camera  Box(84, 84, 3)   nature_cnn ─┐
    speed   Box(2,)          mlp ────────┼── mlp ── heads
    gear    Discrete(6)      one_hot ────┘
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import msgspec
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from engine.config.config_file import suggest
from engine.errors import ConfigError
from engine.layers.trunks import (
    TRUNKS,
    Flat,
    build_trunk,
    find_trunk,
    takes_bytes,
    trunk_name,
)
from engine.spaces.leaves import AnySpace, Leaf, LeafSpace
from engine.spaces.observations import OBSERVATION, observation_leaves
from engine.spec import EncoderSpec, NetworkSpec

Scaled: TypeAlias = Tensor | list[Tensor]
"""What trunks take: one tensor, or one for each leaf in order."""
MAX_EMBEDDING = 2**27
"""Weights of one embedding: half a gigabyte."""
SMALLEST_IMAGE_PIXELS = 3
"""The shortest side of an image that a convolutional network can take."""
MAX_ONE_HOT = 64
"""Choices of one entry up to which `one_hot` is the default."""


@dataclass(frozen=True)
class EncodedLeaf:
    """One leaf of an observation and its encoder.

    Attributes:
        name: Of the leaf, as in `network.encoders`.
        space: Of its values.
        encoder: Name of the encoder, or of the whole trunk if the observation is one Box.
        spec: Its settings.
    """

    name: str
    space: LeafSpace
    encoder: str
    spec: EncoderSpec


def encoded_leaves(space: AnySpace, spec: NetworkSpec) -> tuple[EncodedLeaf, ...]:
    """The leaves of an observation, each with its encoder.

    Raises:
        ConfigError: `network.encoders` names no leaf, or an encoder that a leaf cannot have.
    """
    leaves = observation_leaves(space)
    if (box := lone_box(leaves)) is not None:
        if spec.encoders:
            raise ConfigError(
                f"the observation is a single Box, {box}, whose network is network.name",
                where="network.encoders",
                fix="leave network.encoders out",
            )
        return (EncodedLeaf(OBSERVATION, box, trunk_name(box.shape, spec), EncoderSpec()),)
    names = {name.removeprefix(f"{OBSERVATION}."): leaf.space for name, leaf in leaves.items()}
    if strange := next((name for name in spec.encoders if name not in names), None):
        raise ConfigError(
            f"the observation has no leaf {strange!r}; it has {', '.join(names)}",
            where=f"network.encoders.{strange}",
            fix=suggest(strange, names),
        )
    return tuple(
        _encoded(name, leaf_space, spec.encoders.get(name, EncoderSpec()))
        for name, leaf_space in names.items()
    )


def lone_box(leaves: Mapping[str, Leaf]) -> spaces.Box | None:
    """The space of an observation that is one Box; None if it is anything else."""
    (leaf, *others) = leaves.values()
    return leaf.space if not others and isinstance(leaf.space, spaces.Box) else None


def build_features(space: AnySpace, spec: NetworkSpec) -> tuple[nn.Module, int]:
    """From the input layer's result to features [N, num_features].

    Returns:
        The trunk and its number of features.

    Raises:
        ConfigError: An unknown name, or observations that a trunk or an encoder cannot take.
    """
    encoded = encoded_leaves(space, spec)
    if (box := lone_box(observation_leaves(space))) is not None:
        return build_trunk(box.shape, spec)
    if spec.name not in (None, "mlp"):
        raise ConfigError(
            f"network.name {spec.name} takes a single Box; of several leaves, each has an encoder",
            where="network.name",
            fix=f"network.encoders: {{LEAF: {{name: {spec.name}}}}}",
        )
    built = [_build_encoder(leaf, spec) for leaf in encoded]
    encoders = [encoder for encoder, _ in built]
    total = sum(num_features for _, num_features in built)
    trunk, num_features = build_trunk((total,), msgspec.structs.replace(spec, name="mlp"))
    return EncodedTrunk(encoders, trunk), num_features


def build_encoder(space: AnySpace, spec: NetworkSpec) -> tuple[nn.Module, int]:
    """From the input layer's result to what an `mlp` takes beside other inputs, such as an action.

    Returns:
        What makes features [N, num_features] (of a vector, itself), and their number.

    Raises:
        ConfigError: See `build_features`.
    """
    encoded = encoded_leaves(space, spec)
    if (box := lone_box(observation_leaves(space))) is not None:
        if trunk_name(box.shape, spec) == "mlp":
            return Flat(), math.prod(box.shape)
        return build_trunk(box.shape, spec)
    built = [_build_encoder(leaf, spec) for leaf in encoded]
    total = sum(num_features for _, num_features in built)
    return EncodedTrunk([encoder for encoder, _ in built], nn.Identity()), total


def shares_trunk(space: AnySpace, spec: NetworkSpec) -> bool:
    """Whether policy and value have one trunk: if any part of it is shared by itself."""
    if (box := lone_box(observation_leaves(space))) is not None:
        return find_trunk(box.shape, spec).is_shared
    names = [leaf.encoder for leaf in encoded_leaves(space, spec)]
    return any(TRUNKS[name].is_shared for name in names if name in TRUNKS)


class EncodedTrunk(nn.Module):
    """An encoder for each leaf, and a trunk on the concatenation of their features.

    Args:
        encoders: In the order of leaves.
        trunk: Takes [N, sum of their features].
    """

    def __init__(self, encoders: Sequence[nn.Module], trunk: nn.Module) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(encoders)
        self.trunk = trunk

    def forward(self, leaves: Scaled) -> Tensor:
        """Scaled leaves [N, ...] -> features [N, num_features]."""
        pairs = zip(self.encoders, leaves, strict=True)
        features: Tensor = self.trunk(torch.cat([encoder(leaf) for encoder, leaf in pairs], dim=1))
        return features


class OneHot(nn.Module):
    """Each entry as a vector that is 1 at its value.

    Args:
        nvec: Choices of each entry.
    """

    def __init__(self, nvec: Sequence[int]) -> None:
        super().__init__()
        self.nvec = tuple(nvec)

    def forward(self, values: Tensor) -> Tensor:
        """int64 [N, K] -> float32 [N, sum of nvec]."""
        if len(set(self.nvec)) == 1:
            choices = torch.arange(self.nvec[0], device=values.device)
            return (values.unsqueeze(-1) == choices).flatten(1).to(torch.float32)
        columns = zip(values.unbind(1), self.nvec, strict=True)
        parts = [c.unsqueeze(1) == torch.arange(n, device=values.device) for c, n in columns]
        return torch.cat(parts, dim=1).to(torch.float32)


class Embedding(nn.Module):
    """Each entry as a vector that is learnt.

    Args:
        nvec: Choices of each entry.
        size: Numbers that stand for one.
    """

    def __init__(self, nvec: Sequence[int], size: int) -> None:
        super().__init__()
        self.nvec = tuple(nvec)
        self._firsts = np.cumsum([0, *nvec[:-1]]).tolist()
        self.weight = nn.Parameter(torch.randn(sum(nvec), size) / math.sqrt(size))

    def forward(self, values: Tensor) -> Tensor:
        """int64 [N, K] -> float32 [N, K x size]."""
        columns = zip(values.unbind(1), self._firsts, strict=True)
        rows = torch.stack([column + first for column, first in columns], dim=1)
        num_features = values.shape[1] * self.weight.shape[1]
        return self.weight.index_select(0, rows.flatten()).view(values.shape[0], num_features)


def _encoded(name: str, space: LeafSpace, spec: EncoderSpec) -> EncodedLeaf:
    where = f"network.encoders.{name}.name"
    known: tuple[str, ...]
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        default = "one_hot" if max(nvec_of(space)) <= MAX_ONE_HOT else "embedding"
        known, kind = ("one_hot", "embedding"), "whole numbers"
    else:
        images = (
            isinstance(space, spaces.Box)
            and len(space.shape) == 3
            and sorted(space.shape)[1] >= SMALLEST_IMAGE_PIXELS
        )
        default = trunk_name(space.shape, NetworkSpec()) if images else "mlp"
        known, kind = ("flatten", *TRUNKS), "arrays"
    encoder = spec.name or default
    if encoder not in known:
        raise ConfigError(
            f"{encoder!r} is no encoder for {kind}; there are {', '.join(known)}",
            where=where,
            fix=suggest(encoder, known),
        )
    if spec.normalize and not isinstance(space, spaces.Box):
        raise ConfigError(
            f"{name} is {space}; only a Box is normalised",
            where=f"network.encoders.{name}.normalize",
        )
    return EncodedLeaf(name, space, encoder, spec)


def nvec_of(space: spaces.Discrete | spaces.MultiDiscrete) -> list[int]:
    """Choices of each entry."""
    return [int(n) for n in np.ravel(space.n if isinstance(space, spaces.Discrete) else space.nvec)]


def is_normalized(leaf: EncodedLeaf, spec: NetworkSpec) -> bool:
    if not isinstance(leaf.space, spaces.Box):
        return False
    return spec.normalize_observation if leaf.spec.normalize is None else leaf.spec.normalize


def _trunk_spec(leaf: EncodedLeaf, spec: NetworkSpec) -> NetworkSpec:
    sizes = leaf.spec.hidden_sizes
    return msgspec.structs.replace(spec, name=leaf.encoder, hidden_sizes=sizes)


def passes_bytes(leaf: EncodedLeaf, spec: NetworkSpec) -> bool:
    if leaf.encoder not in TRUNKS or not isinstance(leaf.space, spaces.Box):
        return False
    return takes_bytes(leaf.space.shape, _trunk_spec(leaf, spec))


def _build_encoder(leaf: EncodedLeaf, spec: NetworkSpec) -> tuple[nn.Module, int]:
    match leaf.encoder:
        case "one_hot" | "embedding":
            assert isinstance(leaf.space, spaces.Discrete | spaces.MultiDiscrete)
            nvec = nvec_of(leaf.space)
            if leaf.encoder == "one_hot":
                return OneHot(nvec), sum(nvec)
            if sum(nvec) * leaf.spec.size > MAX_EMBEDDING:
                raise ConfigError(
                    f"an embedding of {sum(nvec):,} choices by {leaf.spec.size} numbers is too"
                    " large",
                    where=f"network.encoders.{leaf.name}",
                    fix="observe it as a Box, or as several smaller numbers",
                )
            return Embedding(nvec, leaf.spec.size), len(nvec) * leaf.spec.size
        case "flatten":
            return Flat(), math.prod(leaf.space.shape or ())
        case _:
            return _build_trunk(leaf, spec)


def _build_trunk(leaf: EncodedLeaf, spec: NetworkSpec) -> tuple[nn.Module, int]:
    try:
        return build_trunk(leaf.space.shape or (), _trunk_spec(leaf, spec))
    except ConfigError as error:
        error.where = f"network.encoders.{leaf.name}.name"
        error.fix = f"network.encoders: {{{leaf.name}: {{name: mlp}}}}"
        raise
