"""An environment whose end, good or bad, an argument decides; `played_env:Played-v0`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import gymnasium
import numpy as np

BAD_STEP = 3


class PlayedEnv(gymnasium.Env):
    """Episodes of 4 to 9 steps; a step pays the number of its action.

    Args:
        mode: What happens in the third step: nothing, or `raises`, `kills`, `exits`, `hangs`,
            `leaves` (a process that goes on).
        render_mode: Gymnasium's.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 5}  # noqa: RUF012
    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, mode: str = "good", render_mode: str | None = None) -> None:
        self.mode = mode
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.age, self.length = 0, int(self.np_random.integers(4, 10))
        return self._seen(), {}

    def step(self, action):
        self.age += 1
        if self.age == BAD_STEP:
            self._misbehave()
        return self._seen(), float(action), self.age >= self.length, False, {}

    def render(self):
        return np.full((32, 48, 3), 20 * self.age, np.uint8)

    def _seen(self):
        return self.np_random.uniform(-1, 1, 2).astype(np.float32)

    def _misbehave(self):
        match self.mode:
            case "raises":
                raise ValueError("the simulator fell over")
            case "kills":
                os.kill(os.getpid(), signal.SIGKILL)
            case "exits":
                os._exit(0)
            case "leaves":
                subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
                self.mode = "hangs"
                self._misbehave()
            case "hangs":
                Path(f"hangs-{os.getpid()}").touch()
                threading.Event().wait()


gymnasium.register("Played-v0", PlayedEnv)
