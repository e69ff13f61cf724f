"""An environment that raises in the middle of an episode."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import gymnasium
import numpy as np

RAISES_AT_STEP = 30


class BrokenEnv(gymnasium.Env[np.ndarray, np.int64]):
    def __init__(self) -> None:
        self.observation_space = gymnasium.spaces.Box(-1, 1, (4,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(2)
        self._num_steps = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(4, np.float32), {}

    def step(self, action):
        self._num_steps += 1
        if self._num_steps == RAISES_AT_STEP:
            raise ValueError("the simulator fell over")
        return np.zeros(4, np.float32), 1.0, False, False, {}


gymnasium.register("Broken-v0", BrokenEnv)


class HangingEnv(gymnasium.Env):
    """Works until somebody makes the file `hang` in the working directory."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (4,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        return np.zeros(4, np.float32), {}

    def step(self, action):
        if Path("hang").exists():
            threading.Event().wait()
        return np.zeros(4, np.float32), 0.0, False, False, {}


gymnasium.register("Hanging-v0", HangingEnv, max_episode_steps=50)


class WrongEnv(gymnasium.Env):
    """Sound until its environment step 30; then returns NaN, or a wrong shape."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (4,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, wrong: np.ndarray | None = None, reward: float = 0.0) -> None:
        self._wrong = np.zeros(4, np.float32) if wrong is None else wrong
        self._reward = reward
        self._num_steps = 0

    def reset(self, *, seed=None, options=None):
        return np.zeros(4, np.float32), {}

    def step(self, action):
        self._num_steps += 1
        if self._num_steps < RAISES_AT_STEP:
            return np.zeros(4, np.float32), 0.0, False, False, {}
        return self._wrong, self._reward, False, False, {}


NAN = np.array([0.0, np.nan, 0.0, 0.0], np.float32)
gymnasium.register("Nan-v0", WrongEnv, kwargs={"wrong": NAN})
gymnasium.register("NanReward-v0", WrongEnv, kwargs={"reward": float("nan")})
gymnasium.register("Shape-v0", WrongEnv, kwargs={"wrong": np.zeros(5, np.float32)})


class HungryEnv(gymnasium.Env):
    """Works until somebody makes the file `eat` in the working directory; then takes memory."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (4,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    MEAL_BYTES = 4 * 2**20

    def __init__(self) -> None:
        self._eaten: list[bytearray] = []

    def reset(self, *, seed=None, options=None):
        return np.zeros(4, np.float32), {}

    def step(self, action):
        if Path("eat").exists():
            self._eaten.append(bytearray(b"x") * self.MEAL_BYTES)
        return np.zeros(4, np.float32), 0.0, False, False, {}


gymnasium.register("Hungry-v0", HungryEnv, max_episode_steps=50)


class LeavingEnv(gymnasium.Env):
    """Ends its process, or tries to, at its first reset or at step 30.

    Args:
        how: A name in `WAYS_OUT`.
        at_reset: When.
    """

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (4,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, how: str, at_reset: bool = False) -> None:
        self._leave, self._at_reset = WAYS_OUT[how], at_reset
        self._num_steps = 0

    def reset(self, *, seed=None, options=None):
        if self._at_reset:
            self._leave()
        return np.zeros(4, np.float32), {}

    def step(self, action):
        self._num_steps += 1
        if self._num_steps == RAISES_AT_STEP:
            self._leave()
        return np.zeros(4, np.float32), 0.0, False, False, {}


def _raise(error: BaseException) -> None:
    raise error


WAYS_OUT = {
    "SystemExit": sys.exit,
    "SystemExit: 0": lambda: sys.exit(0),
    "SystemExit: no licence": lambda: sys.exit("no licence"),
    "KeyboardInterrupt": lambda: _raise(KeyboardInterrupt()),
    "GeneratorExit": lambda: _raise(GeneratorExit()),
    "MemoryError": lambda: _raise(MemoryError()),
    "RecursionError": lambda: _raise(RecursionError("too deep")),
    "os._exit(0)": lambda: os._exit(0),
    "os._exit(3)": lambda: os._exit(3),
}
gymnasium.register("Leaving-v0", LeavingEnv, max_episode_steps=50)
