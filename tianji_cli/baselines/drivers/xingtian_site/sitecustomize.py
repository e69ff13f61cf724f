"""Python reads this at the start of every process of XingTian: its environments get counted.

XingTian starts its processes itself and makes each environment by `gym.make`, so that is where
the counting wrapper comes in. Nothing else of it changes. Python 3.7, old `gym` interface.
"""

from __future__ import annotations

import os
import sys


def _count_environments() -> None:
    try:
        import gym
    except ImportError:  # another interpreter's process: not one that makes environments
        return
    sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    from recorder import EpisodeCounter

    class CountedEnv(gym.Wrapper):  # type: ignore[misc]
        """Passes everything through; the recorder of its process hears of each step."""

        def __init__(self, env: gym.Env) -> None:
            super().__init__(env)
            self._counter = EpisodeCounter()

        def reset(self, **kwargs: object) -> object:
            self._counter.reset()
            return self.env.reset(**kwargs)

        def step(self, action: object) -> object:
            state, reward, done, info = self.env.step(action)
            self._counter.step(reward, done)
            return state, reward, done, info

    make = gym.make

    def make_counted(name: str, **kwargs: object) -> gym.Env:
        return CountedEnv(make(name, **kwargs))

    gym.make = make_counted


if os.environ.get("TIANJI_BENCH_RAW"):
    _count_environments()
