"""Makes vector environments.

All of them restart in Gymnasium's next-step mode: the observation returned with `terminated` or
`truncated` is the episode's true last one, and the following step only resets. So the value to
bootstrap from after a truncation is simply the next row of a rollout.
"""

from __future__ import annotations

import difflib
import time
from typing import Any, TypeAlias

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv

from engine.algorithms.base import Spaces
from engine.errors import ConfigError
from engine.spec import EnvSpec

VectorEnvironment: TypeAlias = VectorEnv[np.ndarray, np.ndarray, np.ndarray]


def make_vector_env(spec: EnvSpec) -> VectorEnvironment:
    """Makes `spec.num_envs` environments that step together.

    Gymnasium's own vectorised implementation is taken where one is registered; otherwise the
    copies are stepped one after the other in this process.

    Raises:
        ConfigError: Unknown id, missing dependency, or constructor arguments that it refuses.
    """
    try:
        options: dict[str, Any] = dict(spec.kwargs)
        env: VectorEnvironment = gymnasium.make_vec(spec.id, num_envs=spec.num_envs, **options)
    except gymnasium.error.UnregisteredEnv as error:
        raise ConfigError(
            f"unknown environment {spec.id!r}", where="env.id", fix=_nearest(spec.id)
        ) from error
    except gymnasium.error.DependencyNotInstalled as error:
        raise ConfigError(str(error), where="env.id") from error
    except (gymnasium.error.Error, TypeError, ValueError, ModuleNotFoundError) as error:
        raise ConfigError(f"{spec.id} cannot be made: {error}", where="env") from error
    mode = env.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP)
    if mode != AutoresetMode.NEXT_STEP:
        env.close()
        raise ConfigError(f"{spec.id} resets in mode {mode}, next-step is needed", where="env.id")
    return SlowedVectorEnv(env, spec.step_latency_ms) if spec.step_latency_ms else env


def spaces_of(env: VectorEnvironment) -> Spaces:
    """The spaces of one of its environments.

    Raises:
        ConfigError: Observations are not a Box.
    """
    observation = env.single_observation_space
    if not isinstance(observation, gymnasium.spaces.Box):
        raise ConfigError(f"observations must be a Box, not {observation}", where="env.id")
    return Spaces(observation, env.single_action_space)


class SlowedVectorEnv(gymnasium.vector.VectorWrapper[np.ndarray, np.ndarray, np.ndarray]):
    """Makes every vector step take longer, as a simulator on slow hardware would.

    Args:
        env: What to slow down.
        latency_ms: Added to each step; the processor is free meanwhile.
    """

    def __init__(self, env: VectorEnvironment, latency_ms: float) -> None:
        super().__init__(env)
        self._latency_s = latency_ms / 1000

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, object]]:
        time.sleep(self._latency_s)
        return self.env.step(actions)


def _nearest(env_id: str) -> str:
    """`did you mean CartPole-v1?`, judged without version suffixes."""
    names = {name.rpartition("-v")[0] or name: name for name in gymnasium.registry}
    near = difflib.get_close_matches(env_id.rpartition("-v")[0] or env_id, names, n=1, cutoff=0.5)
    if near:
        return f"did you mean {names[near[0]]!r}?"
    return "python -c 'import gymnasium; gymnasium.pprint_registry()' lists all"
