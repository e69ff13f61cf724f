"""An environment beside a simulator of its own: another program, which ends at SIGTERM."""

from __future__ import annotations

import subprocess

import gymnasium
import numpy as np

ECHO = ["sh", "-c", "while read line; do echo $line; done"]


class SimulatedEnv(gymnasium.Env[np.ndarray, np.int64]):
    """Every step asks the simulator; one that is gone is an error."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (4,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self) -> None:
        self._simulator = subprocess.Popen(
            ECHO, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def reset(self, *, seed=None, options=None):
        return np.zeros(4, np.float32), {}

    def step(self, action):
        simulator = self._simulator
        assert simulator.stdin is not None
        assert simulator.stdout is not None
        simulator.stdin.write(f"{action}\n")
        if not simulator.stdout.readline():
            raise ConnectionError("the simulator is gone")
        return np.zeros(4, np.float32), 1.0, False, False, {}

    def close(self) -> None:
        self._simulator.terminate()
        self._simulator.wait()


gymnasium.register("Simulated-v0", SimulatedEnv, max_episode_steps=50)
