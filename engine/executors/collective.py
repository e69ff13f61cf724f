"""The learners that make every update together: they agree on it, and add up their shares."""

from __future__ import annotations

import torch
from torch import Tensor

from engine.executors.all_reduce import AllReduce
from engine.timing import MEETING, OFF, Sections


class LearnerGroup:
    """All learners of one update; the calls below return when every learner has made them.

    Args:
        all_reduce: How they add up.
        rank: Number of this learner.
        count: How many there are.
        sections: Where waiting for the others is counted.
        shares: Relative size of each learner's share of a batch; equal by default.
    """

    def __init__(
        self,
        all_reduce: AllReduce,
        rank: int,
        count: int,
        sections: Sections = OFF,
        *,
        shares: tuple[int, ...] = (),
    ) -> None:
        self.rank = rank
        self.count = count
        self.shares = shares or (1,) * count
        self._group = all_reduce
        self._add_up = sections.timed(MEETING, all_reduce.add_up)

    @property
    def own_and_others(self) -> tuple[int, int]:
        """This learner's share of a batch, and all others' together."""
        own = self.shares[self.rank]
        return own, sum(self.shares) - own

    def close(self) -> None:
        """Leaves the group; the others must also have made their last call."""
        self._group.close()

    def all_agree(self, env_steps: int) -> int | None:
        """Agrees on the next update: whether all learners take part, and its size.

        Args:
            env_steps: Of this learner's share.

        Returns:
            Env steps of all shares; None if a learner has withdrawn.
        """
        num_withdrawn, total = self._vote(0, env_steps)
        return None if num_withdrawn else total

    def withdraw(self) -> None:
        """Leaves joint updates; then no other learner continues them either."""
        self._vote(1, 0)

    def _vote(self, *values: int) -> list[int]:
        votes = torch.tensor(values)
        self._add_up(votes)
        return [int(value) for value in votes.tolist()]

    def sum(self, values: Tensor) -> Tensor:
        """The element-wise sum over all learners, a new tensor of this shape without gradient."""
        total = values.detach().clone()
        self.all_reduce_sum(total)
        return total

    def all_reduce_sum(self, values: Tensor) -> None:
        """Replaces `values`, of any shape, by their element-wise sum over all learners."""
        self._add_up(values)
