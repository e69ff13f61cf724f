"""The group of learners that make every update together: torch.distributed with gloo.

The group is made from parts instead of `init_process_group`, so that nothing listens on a wildcard
address: the learners of one host find each other through a file of the run's own directory, and
gloo connects them over the loopback.
Between hosts gloo would be neither encrypted nor authenticated, so that is refused when planning.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import torch
from torch import Tensor
from torch._C import _distributed_c10d as c10d
from torch.distributed import ProcessGroupGloo

from engine.control_protocol import Rendezvous
from engine.timing import MEETING, OFF, Sections

MEET_S = 600.0
"""Time-out for the other learners to reach an update; a dead one is noticed at once."""


class GlooGroup:
    """All learners of one update; the calls below return when every learner has made them.

    Args:
        place: The rendezvous.
        rank: Number of this learner.
        count: How many there are.
        sections: Where waiting for the others is counted.
        shares: Relative size of each learner's share of a batch; equal by default.
    """

    def __init__(
        self,
        place: Rendezvous,
        rank: int,
        count: int,
        sections: Sections = OFF,
        *,
        shares: tuple[int, ...] = (),
    ) -> None:
        self.rank = rank
        self.count = count
        self.shares = shares or (1,) * count
        self._store = c10d.FileStore(place.file, count)
        gloo: Any = ProcessGroupGloo  # its stub lacks options and collectives
        options = gloo._Options()
        options._devices = [gloo.create_device(hostname=place.address)]
        options._timeout = timedelta(seconds=MEET_S)
        self._group = gloo(self._store, rank, count, options)
        self._all_reduce = sections.timed(MEETING, self._wait_for_all)

    @property
    def own_and_others(self) -> tuple[int, int]:
        """This learner's share of a batch, and all others' together."""
        own = self.shares[self.rank]
        return own, sum(self.shares) - own

    def close(self) -> None:
        """Leaves the group; the others must also have made their last call."""
        del self._group

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
        self._all_reduce(votes, c10d.ReduceOp.SUM)
        return [int(value) for value in votes.tolist()]

    def sum(self, values: Tensor) -> Tensor:
        """The element-wise sum over all learners, a new tensor of this shape without gradient."""
        total = values.detach().clone()
        self.all_reduce_sum(total)
        return total

    def all_reduce_sum(self, values: Tensor) -> None:
        """Replaces `values`, of any shape, by their element-wise sum over all learners."""
        here = values.cpu()  # itself, if it is on the CPU already; gloo sums in main memory
        self._all_reduce(here, c10d.ReduceOp.SUM)
        if here is not values:
            values.copy_(here)

    def _wait_for_all(self, values: Tensor, operation: c10d.ReduceOp.RedOpType) -> None:
        self._group.allreduce([values], op=operation).wait()
