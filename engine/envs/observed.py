"""What a vector environment returns, as arrays by the name of their field in a rollout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engine.algorithms.base import Spaces
from engine.envs.make import VectorEnvironment
from engine.envs.masks import Mask, MaskReader, Source
from engine.spaces.action_parts import parts_of
from engine.spaces.leaves import AnySpace, Structure, leaf_values
from engine.spaces.observations import (
    MASK,
    OBSERVATION,
    has_mask_key,
    observation_leaves,
    without_mask,
)
from engine.spec import EnvSpec

Arrays: TypeAlias = dict[str, npt.NDArray[Any]]


class Observed:
    """Takes observations apart.

    Args:
        space: Observation space of one environment, as it declares it.
        spaces: Of the run.
        num_envs: B.
        env_id: For errors.
        first_env: Number of the first environment, for errors.

    Attributes:
        is_plain: Whether an observation is one array and nothing else: it can then be used as it
            is.
    """

    def __init__(
        self, space: AnySpace, spaces: Spaces, num_envs: int, env_id: str, first_env: int = 0
    ) -> None:
        self._space = without_mask(space) if spaces.has_action_mask else space
        leaves = observation_leaves(self._space)
        self._names = tuple(leaves)
        self._mask: MaskReader | None = None
        if spaces.has_action_mask:
            source: Source = "observation" if has_mask_key(space) else "info"
            self._mask = MaskReader(spaces.action, source, num_envs, env_id, first_env)
        is_array = self._names == (OBSERVATION,) and not leaves[OBSERVATION].path
        self.is_plain = is_array and self._mask is None

    def arrays(
        self, observation: Structure, info: Mapping[str, Any], ended: Mask | None = None
    ) -> Arrays:
        """The leaves [B, ...], and the action mask if there is one; see `MaskReader.read`."""
        arrays = dict(zip(self._names, leaf_values(self._space, observation), strict=True))
        if self._mask is not None:
            arrays[MASK] = self._mask.read(observation, info, ended)
        return {name: np.asarray(values) for name, values in arrays.items()}


def look_at_first(
    env: VectorEnvironment, spaces: Spaces, spec: EnvSpec, seed: int
) -> tuple[Spaces, dict[str, Tensor]]:
    """Resets environments for the first time.

    Returns:
        The spaces, with what the reset's info shows of masks; leaves and mask by the name of their
        field, each [B, ...].
    """
    observation, info = env.reset(seed=seed)
    if MASK in info and parts_of(spaces.action).nvec:
        spaces = replace(spaces, has_action_mask=True)
    of = Observed(env.single_observation_space, spaces, spec.num_envs, spec.id)
    arrays = of.arrays(observation, info)
    return spaces, {name: torch.as_tensor(values) for name, values in arrays.items()}
