"""A Gymnasium environment that counts its own steps and returns, in whichever process it runs."""

from __future__ import annotations

from typing import Any

import gymnasium
from recorder import EpisodeCounter


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


def make_counted(env_id: str) -> CountedEnv:
    """The environment of a task."""
    return CountedEnv(gymnasium.make(env_id))
