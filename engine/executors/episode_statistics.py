"""An actor's counts: which of its steps were env steps, and which episodes ended.

They are computed once per rollout from its arrays, so stepping costs nothing more. They are on the
host, whatever steps the environments: there are few numbers, and of these few an operation of NumPy
takes a third of the time of one of PyTorch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.floating]


class EpisodeEnds:
    """Where episodes ended within the rows of a rollout.

    Args:
        done: Bool [T, B]; at least one is true.

    Attributes:
        env, row: Of each end, one environment after the other, [N].
        is_last: Whether it is the last of its environment, bool [N].
        by_row: What sorts them by row, then by environment, [N].
    """

    def __init__(self, done: Bools) -> None:
        self.env, self.row = done.T.nonzero()
        self.is_last = np.append(self.env[1:] != self.env[:-1], True)
        self.by_row = np.lexsort((self.env, self.row))


class EpisodeSums:
    """Sums over the running episode of each environment.

    Args:
        shape: [B, ...].
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._sum = np.zeros(shape)

    def add(self, values: Floats) -> None:
        """Adds rows within which no episode ended, [T, B, ...]; T can be 0."""
        self._sum += values.sum(0, dtype=np.float64)

    def split(self, values: Floats, ends: EpisodeEnds) -> npt.NDArray[np.float64]:
        """Adds rows [T, B, ...]; returns the sums of the episodes that ended, [N, ...], by row."""
        # Running sums go on across ends; the value at the last end is subtracted.
        running = values.cumsum(0, dtype=np.float64)
        running += self._sum
        at_end = running[ends.row, ends.env]
        sums, goes_on = at_end.copy(), ~ends.is_last[:-1]
        sums[1:][goes_on] -= at_end[:-1][goes_on]
        self._sum = running[-1].copy()
        self._sum[ends.env[ends.is_last]] -= at_end[ends.is_last]
        return sums[ends.by_row]


@dataclass(frozen=True)
class Entries:
    """The counts of some steps.

    Attributes:
        valid: Which were env steps rather than resets, bool [T, B].
        num_env_steps: Number of valid steps that this actor counts.
        ended: Row, return and length of each episode that ended, in the order of rows.
        ends: Where they ended; None if none did.
    """

    valid: Bools
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
    """

    def __init__(self, num_envs: int) -> None:
        self._continues: Bools = np.ones(num_envs, np.bool_)
        self._sums = EpisodeSums((num_envs, 2))

    def enter(self, reward: Floats, done: Bools) -> Entries:
        """Counts T steps of all environments; a step after an episode's last one only resets.

        Args:
            reward: The environment's own, float64 [T, B]; T can be 0.
            done: Which episodes ended, bool [T, B].
        """
        if not len(done):
            return Entries(done, 0, [])
        valid = np.concatenate((self._continues[None], ~done[:-1]))
        self._continues = ~done[-1]
        counted = np.zeros((*done.shape, 2))
        np.copyto(counted[..., 0], reward, where=valid)
        counted[..., 1] = valid
        num_env_steps = int(np.count_nonzero(valid))
        if not np.count_nonzero(done):
            self._sums.add(counted)
            return Entries(valid, num_env_steps, [])
        ends = EpisodeEnds(done)
        returns, lengths = self._sums.split(counted, ends).T
        of_each = (ends.row[ends.by_row], returns, lengths.astype(np.int64))
        ended = list(zip(*(values.tolist() for values in of_each), strict=True))
        return Entries(valid, num_env_steps, ended, ends)
