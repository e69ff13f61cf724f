"""CartPole that says how much processor time its steps take; `modules: [metered_env]`.

Each environment appends to a file of its own in `$METERED_DIR`, about once a second, the processor
time of all its steps so far in seconds, and their number.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv

from engine.envs.make import register_environment

ENV_ID = "Metered-v0"
WRITE_S = 1.0


class MeteredVectorEnv(CartPoleVectorEnv):
    """Counts what `step` uses; what slows it down is outside."""

    def __init__(self, num_envs: int = 1) -> None:
        super().__init__(num_envs)
        self._used_s = 0.0
        self._num_steps = 0
        self._write_at_s = 0.0
        self._file = Path(os.environ["METERED_DIR"]) / f"{os.getpid()}-{id(self)}"

    def step(self, action):
        begin_s = time.thread_time()
        result = super().step(action)
        self._used_s += time.thread_time() - begin_s
        self._num_steps += 1
        if time.monotonic() >= self._write_at_s:
            self._write_at_s = time.monotonic() + WRITE_S
            with self._file.open("a") as file:
                file.write(f"{self._used_s} {self._num_steps}\n")
        return result


register_environment(ENV_ID, MeteredVectorEnv, MeteredVectorEnv)
