"""How learners that make every update together add up tensors.

| learners are | way |
|---|---|
| on one host | gloo over the loopback |
| on several hosts | the same on each host; one learner of each is in a ring and hands on its sum |
| on several, `network: trusted` | gloo between all; nccl for tensors on GPUs |

The gloo groups are made from parts instead of `init_process_group`, so that nothing listens on a
wildcard address. Learners of one host find each other through a file of the run's own directory;
those of a trusted network through a store that the first of them serves. gloo and nccl are neither
encrypted nor authenticated; the ring is both.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Protocol

import torch
from torch import Tensor
from torch._C import _distributed_c10d as c10d
from torch.distributed import ProcessGroupGloo

from engine.devices.visible import CPU
from engine.wire.learner_ring import MEET_S, LearnerRing

LOOPBACK = "127.0.0.1"


class AllReduce(Protocol):
    """Learners that add up tensors; calls return when every learner has made them."""

    def add_up(self, values: Tensor) -> None:
        """Replaces `values`, of any shape, by the element-wise sum over all learners; each gets
        the same bits."""
        ...

    def close(self) -> None:
        """Leaves; the others must also have made their last call."""
        ...


class GlooAllReduce:
    """A group over gloo.

    Args:
        store: Where the learners find each other's addresses.
        address: Own one, at which gloo listens.
        rank: Number of this learner.
        count: How many there are.
    """

    def __init__(self, store: c10d.Store, address: str, rank: int, count: int) -> None:
        gloo: Any = ProcessGroupGloo  # its stub lacks options and collectives
        options = gloo._Options()
        options._devices = [gloo.create_device(hostname=address)]
        options._timeout = timedelta(seconds=MEET_S)
        self._store = store
        self._group = gloo(store, rank, count, options)

    def close(self) -> None:
        """See `AllReduce`."""
        del self._group

    def add_up(self, values: Tensor) -> None:
        """See `AllReduce`."""
        here = values.cpu()  # itself, if it is on the CPU already; gloo sums in main memory
        self._group.allreduce([here], op=c10d.ReduceOp.SUM).wait()
        if here is not values:
            values.copy_(here)

    def copy_from_first(self, values: Tensor) -> None:
        """Replaces `values`, on the CPU, by those of the first learner."""
        self._group.broadcast(values, 0).wait()


def gloo_on_this_host(file: str, rank: int, count: int) -> GlooAllReduce:
    """A group of learners of this host, of which nothing leaves it.

    Args:
        file: Of the store, the same for all; it must not exist before.
        rank, count: Number of this learner, and of all.
    """
    return GlooAllReduce(c10d.FileStore(file, count), LOOPBACK, rank, count)


class RingAllReduce:
    """Learners on several hosts.

    Args:
        here: The group of this host's learners; None if this is the only one.
        ring: Of one learner from each host; None if another learner of this host is in it.
    """

    def __init__(self, here: GlooAllReduce | None, ring: LearnerRing | None) -> None:
        self._here = here
        self._ring = ring

    def close(self) -> None:
        """See `AllReduce`."""
        for group in (self._ring, self._here):
            if group is not None:
                group.close()

    def add_up(self, values: Tensor) -> None:
        """See `AllReduce`."""
        own = values.detach().cpu()
        if self._here is not None:
            self._here.add_up(own)
        if self._ring is not None:
            self._ring.add_up(own.numpy())
        if self._here is not None:
            self._here.copy_from_first(own)
        if values.device.type != CPU:
            values.copy_(own)


class TrustedAllReduce:
    """All learners in one group of torch.distributed, over a network that is trusted.

    Args:
        endpoint: Host and port of the store, which the first learner serves.
        address: Own one.
        rank, count: Number of this learner, and of all.
        listener: A descriptor that already listens at `endpoint`, for the first learner.
        device: Of the tensors; nccl adds up what is on a GPU.
    """

    def __init__(
        self,
        endpoint: tuple[str, int],
        address: str,
        rank: int,
        count: int,
        *,
        listener: int | None = None,
        device: torch.device | None = None,
    ) -> None:
        store = c10d.TCPStore(
            *endpoint,
            count,
            is_master=listener is not None,
            timeout=timedelta(seconds=MEET_S),
            master_listen_fd=listener,
        )
        self._gloo = GlooAllReduce(c10d.PrefixStore("gloo", store), address, rank, count)
        self._nccl: Any = None
        if device is not None and device.type == "cuda":
            from torch.distributed import ProcessGroupNCCL

            options = ProcessGroupNCCL.Options()
            self._nccl = ProcessGroupNCCL(c10d.PrefixStore("nccl", store), rank, count, options)

    def close(self) -> None:
        """See `AllReduce`."""
        self._gloo.close()
        del self._nccl

    def add_up(self, values: Tensor) -> None:
        """See `AllReduce`."""
        if self._nccl is None or values.device.type != "cuda":
            self._gloo.add_up(values)
        else:
            self._nccl.allreduce([values], c10d.ReduceOp.SUM).wait()
