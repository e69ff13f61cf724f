"""MinAtar's Breakout on tensors: the rules of `minatar` (Young & Tian, 2019), without branches.

The ball moves along diagonals, in direction 0 (up left), 1 (up right), 2 (down right) or 3 (down
left). So `direction ^ 1` is a reflection by a side, `^ 3` by what is above or below, `^ 2` by both.
"""

from __future__ import annotations

import gymnasium
import numpy as np
import torch
from torch import Tensor

from engine.envs.minatar import MAX_EPISODE_STEPS
from engine.envs.torch_batch import Moved, TorchBatch

SIZE = 10
"""Side length of the board, in cells."""
CELLS = SIZE * SIZE
BRICK_ROWS = slice(1 * SIZE, 4 * SIZE)
"""The cells with bricks at the start."""
LEFT, RIGHT = 1, 3
"""Of the six actions that all games of MinAtar have; the others leave the paddle where it is."""
MINIMAL_ACTIONS = (0, LEFT, RIGHT)
START_ROW, START_COLUMN = 3, 4
(BALL_Y, BALL_X, DIRECTION, PADDLE, STRIKES, LAST_Y, LAST_X, LAST_ACTION, BRICKS) = range(9)
"""Index of each value in a state; bricks come last, one value per cell of the board."""


class TorchBreakout(TorchBatch):
    """Copies of MinAtar/Breakout-v1 that step together.

    Args:
        num_envs: B.
        device: Where all tensors live.
        minimal_actions: Whether to leave out actions that do nothing.
        sticky_action_prob: Chance that the last action is repeated instead of the chosen one.
        difficulty_ramping: As in other games; this one never grows harder.

    Attributes:
        state: As the constants of this module say, int64 [B, 8 + 100].
    """

    def __init__(
        self,
        num_envs: int,
        device: torch.device,
        minimal_actions: bool = True,
        sticky_action_prob: float = 0.1,
        difficulty_ramping: bool = True,
    ) -> None:
        super().__init__(num_envs, BRICKS + CELLS, torch.int64, device, MAX_EPISODE_STEPS, 2)
        actions = MINIMAL_ACTIONS if minimal_actions else tuple(range(6))
        space = gymnasium.spaces.Box(0, 1, (SIZE, SIZE, 4), np.bool_)  # type: ignore[arg-type]
        self.single_observation_space = space
        self.single_action_space = gymnasium.spaces.Discrete(len(actions))
        self._sticky_action_prob = sticky_action_prob
        self._actions = torch.tensor(actions, device=device)
        self._cells = torch.arange(CELLS, device=device)
        self._wall = torch.zeros(CELLS, dtype=torch.int64, device=device)
        self._wall[BRICK_ROWS] = 1

    def _sticks(self, drawn: Tensor) -> Tensor:
        """Whether the last action is repeated, bool [B]."""
        return drawn[:, 0] < self._sticky_action_prob

    def _starts_right(self, drawn: Tensor) -> Tensor:
        """On which side the ball starts, bool [B]."""
        return drawn[:, 1] < 0.5

    def _begin(self, drawn: Tensor) -> Tensor:
        """The last action is kept across episodes, as in `minatar`."""
        starts_right = self._starts_right(drawn)
        row = torch.full_like(self._age, START_ROW)
        column = torch.where(starts_right, SIZE - 1, 0)
        direction = torch.where(starts_right, 3, 2)
        paddle = torch.full_like(row, START_COLUMN)
        nothing = torch.zeros_like(row)
        last_action = self.state[:, LAST_ACTION]
        values = (row, column, direction, paddle, nothing, row, column, last_action)
        wall = self._wall.expand(len(row), CELLS)
        return torch.cat((torch.stack(values, dim=-1), wall), dim=-1)

    def _move(self, action: Tensor, drawn: Tensor) -> Moved:
        ball_y, ball_x, direction, paddle, strikes, _, _, last_action = self.state[
            :, :BRICKS
        ].unbind(-1)
        bricks = self.state[:, BRICKS:]
        chosen = torch.where(self._sticks(drawn), last_action, self._actions[action])
        paddle = (paddle - (chosen == LEFT).long() + (chosen == RIGHT).long()).clamp(0, SIZE - 1)
        x = ball_x + torch.where((direction == 1) | (direction == 2), 1, -1)
        y = ball_y + torch.where(direction >= 2, 1, -1)
        direction = torch.where((x < 0) | (x >= SIZE), direction ^ 1, direction)
        x = x.clamp(0, SIZE - 1)
        at_top = y < 0
        y = y.clamp(0, SIZE - 1)  # it would leave the board of a game that has ended
        cell = y * SIZE + x
        at_brick = (bricks.gather(-1, cell[:, None])[:, 0] == 1) & ~at_top
        breaks = at_brick & (strikes == 0)
        at_bottom = (y == SIZE - 1) & ~at_brick
        bricks = torch.where(breaks[:, None] & (self._cells == cell[:, None]), 0, bricks)
        is_cleared = at_bottom & (bricks.sum(-1) == 0)
        bricks = torch.where(is_cleared[:, None], self._wall, bricks)
        is_met = at_bottom & (ball_x == paddle)
        is_caught = at_bottom & ~is_met & (x == paddle)
        direction = torch.where(at_top | breaks | is_met, direction ^ 3, direction)
        direction = torch.where(is_caught, direction ^ 2, direction)
        y = torch.where(breaks | is_met | is_caught, ball_y, y)
        values = (y, x, direction, paddle, at_brick.long(), ball_y, ball_x, chosen)
        state = torch.cat((torch.stack(values, dim=-1), bricks), dim=-1)
        return state, breaks.to(torch.float32), at_bottom & ~is_met & ~is_caught

    def _observe(self) -> Tensor:
        """Paddle, ball, trail and bricks, bool [B, 10, 10, 4]."""
        y, x, _, paddle, _, last_y, last_x, _ = self.state[:, :BRICKS].unbind(-1)
        places = torch.stack(
            ((SIZE - 1) * SIZE + paddle, y * SIZE + x, last_y * SIZE + last_x), dim=-1
        )
        marks = self._cells[:, None] == places[:, None, :]
        bricks = self.state[:, BRICKS:, None] == 1
        return torch.cat((marks, bricks), dim=-1).view(-1, SIZE, SIZE, 4)
