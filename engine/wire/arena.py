"""Rollouts between the processes of one host: written once, read in place.

An arena is anonymous memory that the forkserver maps before it forks the roles. It has no name, so
nothing can be left in `/dev/shm`: the kernel frees it with the last process that maps it, however
that process dies. It is divided into slots of one rollout each:

    ├─ states, one byte a slot ─┼─ slot 0: header room, rollout ─┼─ slot 1 ─┼─ ...

    FREE --actor takes--> WRITING --sent--> SENT --buffer takes in--> HELD --last reader--> FREE
                                                        HELD --passed on--> PASSED --> HELD

Every slot belongs to one actor, and only that actor takes it. The holder of a slot's array holds
its *lease*: the slot is free again when the array is garbage collected, unless it was handed over
to another process by then. So each state has one writer at a time and needs no lock; the message
that names a slot orders the writes before it. An actor without a free slot uses ordinary memory.

A buffer is notified of slots by rings in shared memory (`engine.wire.spsc_ring`), so sending takes
no system call while the buffer is awake; other receivers are sent the slot's header.

An actor can die when a slot is SENT and not announced yet. Each slot therefore records which
incarnation of its actor wrote it last: the buffer, the only receiver of SENT slots, frees those of
a lost incarnation, and a late announcement is refused.

The slots of an actor are used in turn as long as they fit into a second-level cache: the two ends
then rarely touch the same cache lines, which is faster than reusing the last free slot. Beyond
that, the lowest free slot is used, so that memory is used only for as many as are needed.
"""

from __future__ import annotations

import mmap
import weakref
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from engine.errors import WireError
from engine.wire.header import HEADER_BYTES
from engine.wire.spsc_ring import RingSet
from engine.wire.weights_buffer import SharedWeights

Bytes = npt.NDArray[np.uint8]

FREE, WRITING, SENT, HELD, PASSED = range(5)
_FREE = bytes([FREE])
PAGE_BYTES = 4096
HUGE_PAGE_BYTES = 2**21
TURN_BYTES = 2**20
MIN_TURN = 2
"""Slots are used in turn up to this size in total, and at least this many."""
_EPOCH_BYTES = 4


class _Lease(weakref.ref[Bytes]):
    """A weak reference to the array of a slot, to see when it is freed."""

    __slots__ = ("key", "slot")
    key: int
    """`id` of that array."""
    slot: int


class Arena:
    """Slots in memory that all processes forked after it share.

    Memory is used only for pages that were written.

    Args:
        num_owners: Actors.
        slots_per_owner: Slots that belong to each of them.
        slot_bytes: Size of a rollout.
        buffers: For each actor, the number of the buffer that it sends to; by default the first.
        shared_weights: Memory for the weights of this host's learners, if there is any.

    Attributes:
        rings: From these actors to these buffers.
        shared_weights: See above.
    """

    def __init__(
        self,
        num_owners: int,
        slots_per_owner: int,
        slot_bytes: int,
        buffers: Sequence[int] | None = None,
        shared_weights: SharedWeights | None = None,
    ) -> None:
        self.shared_weights = shared_weights
        self._num_slots = num_owners * slots_per_owner
        self._slots_per_owner = slots_per_owner
        self._slot_bytes = HEADER_BYTES + slot_bytes
        self._stride = _pages(self._slot_bytes)
        self._first = _pages(self._num_slots * (1 + _EPOCH_BYTES))
        self._memory = mmap.mmap(-1, self._first + self._num_slots * self._stride)
        if len(self._memory) >= HUGE_PAGE_BYTES:
            self._memory.madvise(mmap.MADV_HUGEPAGE)
        whole = memoryview(self._memory)
        self._epochs = whole[: self._num_slots * _EPOCH_BYTES].cast("I")
        self._states_at = self._epochs.nbytes
        self._states = whole[self._states_at : self._states_at + self._num_slots]
        self._turn = max(MIN_TURN, TURN_BYTES // self._stride)
        self._turn = min(slots_per_owner, self._turn)
        self._next = 0
        self._leases: dict[int, _Lease] = {}
        """By `id` of the array that covers a slot."""
        self.rings = RingSet(buffers or (0,) * num_owners, 4 * slots_per_owner)

    @property
    def memory(self) -> mmap.mmap:
        """The whole arena, as bytes; `header_at` gives positions in it."""
        return self._memory

    def header_at(self, slot: int) -> int:
        """Offset of a slot's header in `memory`."""
        return self._first + slot * self._stride

    @property
    def num_free(self) -> int:
        return self._states.tobytes().count(FREE)

    def take(self, owner: int, epoch: int = 0) -> Bytes | None:
        """A free slot, as uint8 [slot_bytes] with room for a header in front.

        Args:
            owner: The actor.
            epoch: Its incarnation.

        Returns:
            None if all slots of this owner are in use.
        """
        first = self._states_at + owner * self._slots_per_owner
        end = first + self._slots_per_owner
        if end > self._states_at + self._num_slots:
            return None
        find = self._memory.find
        at = find(_FREE, first + self._next, first + self._turn)
        if at < 0 and (at := find(_FREE, first, end)) < 0:
            return None
        slot = at - self._states_at
        self._next = (at + 1 - first) % self._turn
        self._epochs[slot] = epoch
        self._states[slot] = WRITING
        return self._lease(slot)

    def reclaim(self, owner: int) -> None:
        """Frees what an earlier incarnation of this owner was writing when it died."""
        for slot in self._slots_of(owner):
            if self._states[slot] == WRITING:
                self._states[slot] = FREE

    def reclaim_sent(self, owner: int, epoch: int) -> int:
        """Frees slots that a lost incarnation of an actor sent and that were never received.

        Only the receiving process of this owner may call it.

        Args:
            owner: The actor.
            epoch: The lost incarnation; those before it are lost as well.

        Returns:
            How many slots were freed.
        """
        slots = self._slots_of(owner)
        if (ring := self.rings.of(owner)) is not None:
            ring.forget(epoch)
        lost = [s for s in slots if self._states[s] == SENT and self._epochs[s] <= epoch]
        for slot in lost:
            self._states[slot] = FREE
        return len(lost)

    def _slots_of(self, owner: int) -> range:
        """An owner's slots; empty for an unknown owner."""
        first = owner * self._slots_per_owner
        return range(
            min(first, self._num_slots), min(first + self._slots_per_owner, self._num_slots)
        )

    def hand_over(self, buffer: Bytes) -> int | None:
        """Gives up the lease: from now on another process frees the slot, so send it only once.

        Returns:
            The slot; None if this process holds no lease for this memory.
        """
        lease = self._leases.pop(id(buffer.base), None)
        if lease is None:
            return None
        slot = lease.slot
        self._states[slot] = SENT if self._states[slot] == WRITING else PASSED
        return slot

    def attach(self, slot: int, epoch: int = 0) -> Bytes:
        """Takes over the lease of a slot from another process.

        Args:
            slot: Its number.
            epoch: The incarnation of its actor that wrote it.

        Raises:
            WireError: There is no such slot, it was never sent, or it holds something else now.
        """
        if slot >= self._num_slots or self._states[slot] not in (SENT, PASSED):
            raise WireError(f"slot {slot} was never sent")
        if self._epochs[slot] != epoch:
            raise WireError(f"slot {slot} is that of another incarnation than {epoch}")
        self._states[slot] = HELD
        return self._lease(slot)

    def free(self, slot: int) -> None:
        """Frees a slot that was handed over to no receiver."""
        self._states[slot] = FREE

    def _lease(self, slot: int) -> Bytes:
        """The rollout in a slot, uint8 [slot_bytes]; frees the slot when no view of it is left."""
        at = self._first + slot * self._stride
        whole: Bytes = np.ndarray((self._slot_bytes,), np.uint8, self._memory, at)
        lease = _Lease(whole, self._release)
        lease.slot, lease.key = slot, id(whole)
        self._leases[lease.key] = lease
        return whole[HEADER_BYTES:]

    def _release(self, lease: _Lease) -> None:
        del self._leases[lease.key]
        self._states[lease.slot] = FREE


def _pages(num_bytes: int) -> int:
    """`num_bytes` rounded up to whole pages."""
    return -(-num_bytes // PAGE_BYTES) * PAGE_BYTES
