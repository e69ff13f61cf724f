"""An actor's counts: which of its steps were env steps, and which episodes ended.

They are computed once per rollout from its arrays, so stepping costs nothing more.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Entries:
    """The counts of some steps.

    Attributes:
        valid: Which were env steps rather than resets, bool [T, B].
        num_env_steps: Number of valid steps that this actor counts.
        ended: Row, return and length of each episode that ended, in the order of rows.
    """

    valid: Tensor
    num_env_steps: int
    ended: list[tuple[int, float, int]]

    def share(self, number: int, count: int) -> Entries:
        """The same for one of several actors that act in the same environments: each counts every
        so many of their steps, so that all of them together count each step and episode once.

        Args:
            number: Of this actor among them.
            count: How many there are.
        """
        own = self.valid.flatten()[number::count]
        return Entries(self.valid, int(own.sum()), self.ended[number::count])


class EpisodeStatistics:
    """Returns and lengths of the running episodes.

    Args:
        num_envs: B.
        device: Where rollouts are.
    """

    def __init__(self, num_envs: int, device: torch.device) -> None:
        self._continues = torch.ones(num_envs, dtype=torch.bool, device=device)
        self._return = torch.zeros(num_envs, dtype=torch.float64, device=device)
        self._length = torch.zeros(num_envs, dtype=torch.int64, device=device)

    def enter(self, reward: Tensor, done: Tensor) -> Entries:
        """Counts T steps of all environments; a step after an episode's last one only resets.

        Args:
            reward: The environment's own, float64 [T, B]; T can be 0.
            done: Which episodes ended, bool [T, B].
        """
        if not len(done):
            return Entries(done, 0, [])
        if bool(self._continues.all()) and not bool(done.any()):
            self._return = self._return + reward.sum(0, dtype=torch.float64)
            self._length = self._length + len(done)
            return Entries(torch.ones_like(done), done.numel(), [])
        valid = torch.cat((self._continues[None], ~done[:-1]))
        total = torch.where(valid, reward, 0.0).to(torch.float64).cumsum(0) + self._return
        length = valid.cumsum(0) + self._length
        # Both run on across episode ends; the value at the last end is subtracted.
        row = torch.arange(len(done), device=done.device)[:, None]
        last_end = torch.where(done, row, -1).cummax(0).values
        before = torch.cat((torch.full_like(last_end[:1], -1), last_end[:-1]))
        returns, lengths = _since(total, before), _since(length, before)
        self._return = torch.where(done[-1], 0.0, returns[-1])
        self._length = torch.where(done[-1], 0, lengths[-1])
        self._continues = ~done[-1]
        rows, _ = ended = done.nonzero(as_tuple=True)
        episodes = zip(rows.tolist(), returns[ended].tolist(), lengths[ended].tolist(), strict=True)
        return Entries(valid, int(valid.sum()), list(episodes))


def _since(running: Tensor, row: Tensor) -> Tensor:
    """The sum since that row of each column, or of all rows if it is -1; all [T, B]."""
    return running - torch.where(row >= 0, running.gather(0, row.clamp(min=0)), 0)
