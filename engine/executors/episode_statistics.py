"""An actor's counts: which of its steps were env steps, and which episodes ended.

They are computed once per rollout from its arrays, so stepping costs nothing more.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class EpisodeEnds:
    """Where episodes ended within the rows of a rollout.

    Attributes:
        done: Bool [T, B], T at least 1.
    """

    done: Tensor

    @cached_property
    def places(self) -> tuple[Tensor, Tensor]:
        """Row and environment of each end, in the order of rows; each [N]."""
        row, env = self.done.nonzero(as_tuple=True)
        return row, env

    @cached_property
    def _before(self) -> Tensor:
        """The row of the last end before each row, -1 if there is none; [T, B]."""
        row = torch.arange(len(self.done), device=self.done.device)[:, None]
        last_end = torch.where(self.done, row, -1).cummax(0).values
        return torch.cat((torch.full_like(last_end[:1], -1), last_end[:-1]))

    def since(self, running: Tensor) -> Tensor:
        """Sums since the last end before each row, from running ones; both [T, B, ...]."""
        before = _spread(self._before, running)
        return running - torch.where(before >= 0, running.gather(0, before.clamp(min=0)), 0)


class EpisodeSums:
    """Sums over the running episode of each environment.

    Args:
        shape: [B, ...].
        dtype: In which they are added.
        device: Where rollouts are.
    """

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> None:
        self._sum = torch.zeros(shape, dtype=dtype, device=device)

    def add(self, values: Tensor) -> None:
        """Adds rows within which no episode ended, [T, B, ...]; T can be 0."""
        self._sum = self._sum + values.sum(0, dtype=self._sum.dtype)

    def split(self, values: Tensor, ends: EpisodeEnds) -> Tensor:
        """Adds rows [T, B, ...]; returns the sums of the episodes that ended, [N, ...]."""
        # Running sums go on across ends; the value at the last end is subtracted.
        since = ends.since(values.to(self._sum.dtype).cumsum(0) + self._sum)
        self._sum = torch.where(_spread(ends.done[-1], since[-1]), 0, since[-1])
        return since[ends.places]


def _spread(values: Tensor, like: Tensor) -> Tensor:
    """Expands [T, B] or [B] to the shape of a tensor with more axes after these."""
    return values.reshape(*values.shape, *[1] * (like.ndim - values.ndim)).expand_as(like)


@dataclass(frozen=True)
class Entries:
    """The counts of some steps.

    Attributes:
        valid: Which were env steps rather than resets, bool [T, B].
        num_env_steps: Number of valid steps that this actor counts.
        ended: Row, return and length of each episode that ended, in the order of rows.
        ends: Where they ended; None if none did and no step only reset.
    """

    valid: Tensor
    num_env_steps: int
    ended: list[tuple[int, float, int]]
    ends: EpisodeEnds | None = None

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
        self._return = EpisodeSums((num_envs,), torch.float64, device)
        self._length = EpisodeSums((num_envs,), torch.int64, device)

    def enter(self, reward: Tensor, done: Tensor) -> Entries:
        """Counts T steps of all environments; a step after an episode's last one only resets.

        Args:
            reward: The environment's own, float64 [T, B]; T can be 0.
            done: Which episodes ended, bool [T, B].
        """
        if not len(done):
            return Entries(done, 0, [])
        if bool(self._continues.all()) and not bool(done.any()):
            valid = torch.ones_like(done)
            self._return.add(reward)
            self._length.add(valid)
            return Entries(valid, done.numel(), [])
        valid, ends = torch.cat((self._continues[None], ~done[:-1])), EpisodeEnds(done)
        returns = self._return.split(torch.where(valid, reward, 0.0), ends)
        lengths = self._length.split(valid, ends)
        self._continues = ~done[-1]
        rows, _ = ends.places
        episodes = zip(rows.tolist(), returns.tolist(), lengths.tolist(), strict=True)
        return Entries(valid, int(valid.sum()), list(episodes), ends)
