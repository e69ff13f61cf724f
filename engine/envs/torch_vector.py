"""An environment of tensors, stepped as a vector of NumPy arrays: for what comes after training."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from engine.envs.make import VectorEnvironment, make_vector_env
from engine.envs.torch_envs import TORCH_ENVIRONMENTS, make_torch_env
from engine.errors import ConfigError
from engine.spec import EnvSpec


class TorchVectorEnv(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """Takes flat actions, as the environments of `make_vector_env` do.

    Args:
        spec: Of an environment with a version of tensors.

    Raises:
        ConfigError: It cannot be made.
    """

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(self, spec: EnvSpec) -> None:
        self._env = make_torch_env(spec, torch.device("cpu"))
        self.num_envs = spec.num_envs
        self.single_observation_space = self._env.single_observation_space
        self.single_action_space = self._env.single_action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        return self._env.reset(seed or 0).numpy(), {}

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        observation, *others = self._env.step(torch.from_numpy(actions))
        reward, terminated, truncated = (values.numpy() for values in others)
        return observation.numpy(), reward, terminated, truncated, {}


def is_of_tensors_only(spec: EnvSpec, error: ConfigError) -> bool:
    """Whether an environment could not be made because it has only a version of tensors."""
    is_unknown = isinstance(error.__cause__, gymnasium.error.UnregisteredEnv)
    return is_unknown and spec.registered_id in TORCH_ENVIRONMENTS


def make_any_vector_env(spec: EnvSpec) -> VectorEnvironment:
    """As `make_vector_env`; also environments that have only a version of tensors."""
    try:
        return make_vector_env(spec)
    except ConfigError as error:
        if not is_of_tensors_only(spec, error):
            raise
    return TorchVectorEnv(spec)
