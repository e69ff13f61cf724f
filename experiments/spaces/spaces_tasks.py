"""Small tasks with hybrid actions, with masked choices, and with something to remember."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete

from engine.extensions import register_environment

Info = dict[str, Any]


class Aim(gymnasium.Env[Any, Any]):
    """Choose the tool that is asked for and point it at the target: a hybrid action.

    Each of 20 steps pays 1 for the right tool, less its distance to the target; at most 20.
    """

    observation_space = Dict({"target": Box(-1, 1, (2,)), "wanted": Discrete(4)})
    action_space = Dict({"tool": Discrete(4, start=1), "point": Box(-1, 1, (2,))})

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> tuple[Any, Info]:
        super().reset(seed=seed)
        self._steps = 0
        return self._look(), {}

    def _look(self) -> dict[str, Any]:
        self._target = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        self._wanted = int(self.np_random.integers(4))
        return {"target": self._target, "wanted": self._wanted}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, Info]:  # noqa: ANN401
        distance = float(np.abs(action["point"] - self._target).mean())
        reward = float(action["tool"] == self._wanted + 1) - distance
        self._steps += 1
        return self._look(), reward, False, self._steps == 20, {}


class OneInTen(gymnasium.Env[Any, Any]):
    """Of 100 choices ten are valid, others in each state; one of them is the best.

    A valid choice pays 0 to 1, in the order of the valid ones as the state ranks them; an invalid
    one pays -1. An episode has 20 steps.

    Args:
        masks: Whether info tells which are valid. If it does, an invalid choice is an error.
    """

    action_space = Discrete(100)
    observation_space = Box(0, 1, (10,))

    def __init__(self, masks: bool = True) -> None:
        self._masks = masks

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> tuple[Any, Info]:
        super().reset(seed=seed)
        self._steps = 0
        return self._look()

    def _look(self) -> tuple[Any, Info]:
        # One valid choice in each ten; the place within its ten is observed.
        self._place = self.np_random.integers(10, size=10)
        mask = np.zeros(100, np.int8)
        mask[10 * np.arange(10) + self._place] = 1
        return (self._place / 9).astype(np.float32), {"action_mask": mask} if self._masks else {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, Info]:  # noqa: ANN401
        ten, place = divmod(int(action), 10)
        is_valid = place == self._place[ten]
        if self._masks and not is_valid:
            raise AssertionError(f"choice {action} is masked out")
        reward = ten / 9 if is_valid else -1.0
        self._steps += 1
        seen, info = self._look()
        return seen, reward, False, self._steps == 20, info


class TMaze(gymnasium.Env[Any, Any]):
    """The T-maze (Bakker, 2002): a signal at the start says where to turn at the end.

    Actions are up, down, along. The right turn pays 1 and ends the episode; another ends it with
    -0.1. A move against a wall costs 0.1.

    Args:
        length: Steps along the corridor.
    """

    action_space = Discrete(3)
    observation_space = Box(0, 1, (3,))

    def __init__(self, length: int = 10) -> None:
        self._length = length

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> tuple[Any, Info]:
        super().reset(seed=seed)
        self._at, self._steps = 0, 0
        self._turn = int(self.np_random.integers(2))
        return self._look(), {}

    def _look(self) -> Any:  # noqa: ANN401
        """Signal (up or down, only at the start), and whether this is the junction."""
        signal = [float(self._at == 0 and self._turn == way) for way in range(2)]
        return np.array([*signal, float(self._at == self._length)], np.float32)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, Info]:  # noqa: ANN401
        self._steps += 1
        is_junction = self._at == self._length
        if is_junction and action < 2:
            reward = 1.0 if action == self._turn else -0.1
            return self._look(), reward, True, False, {}
        moves = action == 2 and not is_junction
        self._at += moves
        return self._look(), 0.0 if moves else -0.1, False, self._steps >= 4 * self._length, {}


register_environment("Aim-v0", Aim)
register_environment("OneInTen-v0", OneInTen)
register_environment("TMaze-v0", TMaze)
