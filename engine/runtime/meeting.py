"""Where learners that take every update together meet: torch.distributed with gloo.

The group is made from parts instead of `init_process_group`, so that nothing listens on a wildcard
address. On one host the learners find each other through a file in the run's private directory;
between hosts through a key-value store that the first learner serves on its own address and one
port of the run's range, all keys under a secret prefix that came with the launch. Gloo's own
connections are neither encrypted nor authenticated: between hosts they need a network to trust.
"""

from __future__ import annotations

import socket
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._C import _distributed_c10d as c10d
from torch.distributed import ProcessGroupGloo

from engine.errors import PreflightError
from engine.wire.rendezvous import Rendezvous

JOIN_S = 60.0
MEET_S = 600.0
"""How long the others may take to come to an update; a dead one is noticed at once."""


class Meeting:
    """All learners of one update; the calls below return when every learner has made them.

    Args:
        place: Where to meet.
        rank: Number of this learner.
        count: How many there are.

    Raises:
        PreflightError: The first learner cannot listen at the meeting place.
    """

    def __init__(self, place: Rendezvous, rank: int, count: int) -> None:
        self.rank = rank
        self.count = count
        self._store = _store(place, rank, count)
        gloo: Any = ProcessGroupGloo  # its stub lacks options and collectives
        options = gloo._Options()
        options._devices = [gloo.create_device(hostname=place.address)]
        options._timeout = timedelta(seconds=MEET_S)
        prefixed = c10d.PrefixStore(place.secret, self._store)
        self._group = gloo(prefixed, rank, count, options)

    def close(self) -> None:
        """Leaves; the others must have made their last call, too."""
        del self._group

    def agree(self, is_willing: bool) -> bool:
        """Whether every learner is willing."""
        vote = torch.tensor([1 if is_willing else 0])
        self._group.allreduce([vote], op=c10d.ReduceOp.MIN).wait()
        return bool(vote.item())

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all learners, as a new tensor without gradient."""
        total = values.detach().clone()
        self.add_up(total)
        return total

    def add_up(self, values: Tensor) -> None:
        """Replaces `values` by their sum over all learners."""
        self._group.allreduce([values], op=c10d.ReduceOp.SUM).wait()


def _store(place: Rendezvous, rank: int, count: int) -> c10d.Store:
    timeout = timedelta(seconds=JOIN_S)
    if place.file:
        Path(place.file).parent.mkdir(parents=True, exist_ok=True)
        return c10d.FileStore(place.file, count)
    listener = _listen(place) if rank == 0 else None
    return c10d.TCPStore(
        place.store_address,
        place.store_port,
        count,
        rank == 0,
        timeout,
        wait_for_workers=False,
        master_listen_fd=listener.detach() if listener else None,
        use_libuv=False,
    )


def _listen(place: Rendezvous) -> socket.socket:
    family = socket.AF_INET6 if ":" in place.store_address else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((place.store_address, place.store_port))
        listener.listen()
    except OSError as error:
        listener.close()
        where = f"{place.store_address}:{place.store_port}"
        raise PreflightError(f"the learners cannot meet: {error.strerror}", where=where) from error
    return listener
