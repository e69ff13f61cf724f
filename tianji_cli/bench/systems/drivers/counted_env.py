"""A Gymnasium environment that counts its own steps and returns, in whichever process it runs.

It must work under Gymnasium 0.29, Sample Factory's, as well as under 1.x.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from typing import Any

import gymnasium
import numpy as np
from recorder import EpisodeCounter

MINATAR_STEPS = 5000
"""A good player could play without end; longer episodes are truncated."""


class CountedEnv(gymnasium.Wrapper):
    """Passes everything through; the recorder of its process hears of each step."""

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        self._counter = EpisodeCounter()

    def reset(self, **kwargs: Any) -> Any:  # noqa: ANN401 - as the environment has it
        self._counter.reset()
        return self.env.reset(**kwargs)

    def step(self, action: Any) -> Any:  # noqa: ANN401
        result = self.env.step(action)
        _, reward, terminated, truncated, _ = result
        self._counter.step(reward, terminated or truncated)
        return result


class ClippedReward(gymnasium.RewardWrapper):
    """The sign of the reward; stands outside of the counting, which hears the true one."""

    def reward(self, reward: Any) -> float:  # noqa: ANN401
        return float(np.sign(reward))


class FireAtStart(gymnasium.Wrapper):
    """Games that wait for FIRE get it."""

    def reset(self, **kwargs: Any) -> Any:  # noqa: ANN401
        result = self.env.reset(**kwargs)
        if "FIRE" not in self.unwrapped.get_action_meanings():  # type: ignore[attr-defined]
            return result
        observation, _, terminated, truncated, info = self.env.step(1)
        return self.env.reset(**kwargs) if terminated or truncated else (observation, info)


class Stacked(gymnasium.Wrapper):
    """The last four frames, [4, H, W]; black ones before the first."""

    def __init__(self, env: gymnasium.Env[Any, Any], num_frames: int = 4) -> None:
        super().__init__(env)
        shape = env.observation_space.shape
        assert shape is not None
        self._frames: deque[np.ndarray] = deque(maxlen=num_frames)
        self.observation_space = gymnasium.spaces.Box(0, 255, (num_frames, *shape), np.uint8)

    def reset(self, **kwargs: Any) -> Any:  # noqa: ANN401
        frame, info = self.env.reset(**kwargs)
        assert self._frames.maxlen is not None
        self._frames.extend([np.zeros_like(frame)] * (self._frames.maxlen - 1))
        self._frames.append(frame)
        return np.stack(self._frames), info

    def step(self, action: Any) -> Any:  # noqa: ANN401
        frame, reward, terminated, truncated, info = self.env.step(action)
        self._frames.append(frame)
        return np.stack(self._frames), reward, terminated, truncated, info


class ChannelsFirst(gymnasium.ObservationWrapper):
    """MinAtar's bits [H, W, C] as float32 [C, H, W], which every system takes."""

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        shape = env.observation_space.shape
        assert shape is not None
        self.observation_space = gymnasium.spaces.Box(
            0.0, 1.0, (shape[2], shape[0], shape[1]), np.float32
        )

    def observation(self, observation: Any) -> np.ndarray:  # noqa: ANN401
        return np.ascontiguousarray(np.moveaxis(observation, -1, 0), dtype=np.float32)


def look_in_own_modules(env_id: str) -> None:
    """Lets the module of an environment be found, which may be the user's own."""
    if ":" in env_id:
        places = os.environ.get("TIANJI_MODULES", "").split(os.pathsep)
        sys.path.extend(place for place in places if place and place not in sys.path)


def make_counted(env: dict[str, Any]) -> gymnasium.Env[Any, Any]:
    """The environment of a task.

    Args:
        env: The section `env` of the job.
    """
    env_id = env["id"]
    look_in_own_modules(env_id)
    namespace = env_id.partition("/")[0] if "/" in env_id else ""
    make = {"ALE": _make_atari, "MinAtar": _make_minatar}.get(namespace, gymnasium.make)
    counted: gymnasium.Env[Any, Any] = CountedEnv(make(env_id))
    return ClippedReward(counted) if env["clip_reward"] else counted


class OneOfAtari(gymnasium.Env):
    """ale-py's own vector environment, which TianJi steps, with one game in it."""

    def __init__(self, env_id: str) -> None:
        import ale_py

        gymnasium.register_envs(ale_py)
        options: dict[str, Any] = {"num_threads": 1, "reward_clipping": False}
        self._games = gymnasium.make_vec(
            env_id, num_envs=1, repeat_action_probability=0.0, **options
        )
        self.observation_space = self._games.single_observation_space
        self.action_space = self._games.single_action_space

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:  # noqa: ANN401
        observations, _ = self._games.reset(seed=seed)
        return observations[0].copy(), {}

    def step(self, action: Any) -> Any:  # noqa: ANN401
        observations, reward, terminated, truncated, _ = self._games.step(np.array([action]))
        ends = bool(terminated[0]), bool(truncated[0])
        return observations[0].copy(), float(reward[0]), *ends, {}

    def close(self) -> None:
        self._games.close()


def _make_atari(env_id: str) -> gymnasium.Env[Any, Any]:
    """The same games for every system: from ale-py's own pipeline, or an equivalent one."""
    if int(gymnasium.__version__.partition(".")[0]) >= 1:
        return OneOfAtari(env_id)
    import ale_py  # noqa: F401 - its import registers the games there

    game = gymnasium.make(env_id, frameskip=1, repeat_action_probability=0.0)
    skipped = gymnasium.wrappers.AtariPreprocessing(game, noop_max=30, frame_skip=4)
    return Stacked(FireAtStart(skipped))


def _make_minatar(env_id: str) -> gymnasium.Env[Any, Any]:
    from minatar.gym import register_envs

    if env_id not in gymnasium.registry:
        register_envs()
    return ChannelsFirst(gymnasium.make(env_id, max_episode_steps=MINATAR_STEPS))
