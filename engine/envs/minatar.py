"""MinAtar (Young & Tian, 2019) as Gymnasium environments, `MinAtar/Breakout-v1` and its like.

Observations are bool [10, 10, channels]. Sticky actions (0.1) and growing difficulty are on, as the
authors recommend; actions that do nothing in a game are left out.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

GAMES = ("asterix", "breakout", "freeway", "seaquest", "space_invaders")
MAX_EPISODE_STEPS = 5000
"""A good player could play without end; longer episodes are truncated."""
CELL_PIXELS = 24
BACKGROUND = (16, 16, 24)
COLOURS = (
    *((86, 180, 233), (240, 228, 66), (213, 94, 0), (0, 158, 115), (204, 121, 167)),
    *((230, 159, 0), (0, 114, 178), (240, 240, 240), (150, 111, 51), (140, 140, 150)),
)
"""Of the channels, in their order; red, green and blue. No game has more channels."""


class MinAtarEnv(gymnasium.Env[np.ndarray, np.int64]):
    """One game.

    Args:
        game: One of `GAMES`.
        minimal_actions: Whether to leave out actions that do nothing.
        sticky_action_prob: Chance that the last action is repeated instead of the chosen one.
        difficulty_ramping: Whether games that can grow harder do so.
        render_mode: `rgb_array`, if it is rendered.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012

    def __init__(
        self,
        game: str,
        minimal_actions: bool = True,
        sticky_action_prob: float = 0.1,
        difficulty_ramping: bool = True,
        render_mode: str | None = None,
    ) -> None:
        from minatar import Environment

        self.render_mode = render_mode

        self._game = Environment(game, sticky_action_prob, difficulty_ramping)
        everything = list(range(self._game.num_actions()))
        self._actions = self._game.minimal_action_set() if minimal_actions else everything
        self.action_space = gymnasium.spaces.Discrete(len(self._actions))
        shape = tuple(self._game.state_shape())
        self.observation_space = gymnasium.spaces.Box(0, 1, shape, np.bool_)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:
            self._game.seed(seed)
        self._game.reset()
        return self._state(), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        reward, is_terminated = self._game.act(self._actions[int(action)])
        return self._state(), float(reward), bool(is_terminated), False, {}

    def render(self) -> np.ndarray | None:
        """The board, uint8 [240, 240, 3], a colour for each channel; None without a render mode."""
        return None if self.render_mode is None else drawn(self._state())

    def _state(self) -> np.ndarray:
        return np.asarray(self._game.state(), np.bool_)


def drawn(state: np.ndarray) -> np.ndarray:
    """A state, bool [H, W, channels], as a picture, uint8 [24 H, 24 W, 3]. Where several channels
    are set, the last one is seen, as in MinAtar's own display."""
    numbers = np.arange(1, state.shape[-1] + 1)
    colours = np.array([BACKGROUND, *COLOURS], np.uint8)
    cells = colours[(state * numbers).max(axis=-1)]
    return np.asarray(cells.repeat(CELL_PIXELS, axis=0).repeat(CELL_PIXELS, axis=1))


def register_minatar() -> None:
    """Makes the ids known to Gymnasium; does nothing the second time."""
    for game in GAMES:
        title = "".join(part.title() for part in game.split("_"))
        env_id = f"MinAtar/{title}-v1"
        if env_id not in gymnasium.registry:
            gymnasium.register(
                env_id,
                entry_point=f"{__name__}:MinAtarEnv",
                max_episode_steps=MAX_EPISODE_STEPS,
                kwargs={"game": game},
            )
