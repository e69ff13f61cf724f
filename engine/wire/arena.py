"""Rollouts between the processes of one host: written once, read in place.

An arena is anonymous memory that the nursery maps before it forks the roles. It has no name, so
nothing can be left in `/dev/shm`: the kernel frees it with the last process that maps it, however
that one dies. It is cut into slots of one rollout each:

    ├─ states, one byte a slot ─┼─ slot 0: header room, rollout ─┼─ slot 1 ─┼─ ...

    FREE --actor takes--> WRITING --sent--> SENT --buffer takes in--> HELD --last reader--> FREE
                                                        HELD --passed on--> PASSED --> HELD

Every slot belongs to one actor, and only that actor takes it. Whoever holds a slot's array holds
its *lease*: the slot is free again when the array is garbage, unless it was handed over to another
process by then. So each state has one writer at a time and needs no lock; that a message says
which slot to read orders the bytes before it. An actor without a free slot uses ordinary memory.

An actor may die when a slot is SENT and the message never leaves its process. Each slot therefore
says which incarnation of its actor wrote it last: the buffer, the only one that takes SENT slots
in, frees those of an incarnation that is lost, and a message that comes after all is refused.
"""

from __future__ import annotations

import mmap
import weakref

import numpy as np
import numpy.typing as npt

from engine.errors import WireError
from engine.wire.header import HEADER_BYTES

Bytes = npt.NDArray[np.uint8]

FREE, WRITING, SENT, HELD, PASSED = range(5)
PAGE_BYTES = 4096
_EPOCH = np.dtype(np.uint32)


class Arena:
    """Slots in memory that all processes forked after it share.

    Memory is used only for pages that were written, lowest slots first.

    Args:
        num_owners: Actors.
        slots_per_owner: Slots that belong to each of them.
        slot_bytes: Size of a rollout.
    """

    def __init__(self, num_owners: int, slots_per_owner: int, slot_bytes: int) -> None:
        self._num_slots = num_owners * slots_per_owner
        self._slots_per_owner = slots_per_owner
        self._slot_bytes = HEADER_BYTES + slot_bytes
        self._stride = _pages(self._slot_bytes)
        self._first = _pages(self._num_slots * (1 + _EPOCH.itemsize))
        self._memory = mmap.mmap(-1, self._first + self._num_slots * self._stride)
        self._epochs = np.frombuffer(self._memory, _EPOCH, count=self._num_slots)
        self._states = np.frombuffer(
            self._memory, np.uint8, count=self._num_slots, offset=self._epochs.nbytes
        )
        self._leases: dict[int, tuple[weakref.finalize[[int], Bytes], int]] = {}
        """By `id` of the array that covers a slot."""

    @property
    def num_free(self) -> int:
        return int(np.count_nonzero(self._states == FREE))

    def take(self, owner: int, epoch: int = 0) -> Bytes | None:
        """A slot to write a rollout to, as an array with room for a header in front.

        Args:
            owner: The actor.
            epoch: Its incarnation.

        Returns:
            None if all slots of this owner are in use.
        """
        if owner * self._slots_per_owner >= self._num_slots:
            return None
        first = owner * self._slots_per_owner
        free = np.flatnonzero(self._states[first : first + self._slots_per_owner] == FREE)
        if not len(free):
            return None
        slot = first + int(free[0])
        self._epochs[slot] = epoch
        self._states[slot] = WRITING
        return self._lease(slot)

    def reclaim(self, owner: int) -> None:
        """Frees what an earlier incarnation of this owner was writing when it died."""
        states, _ = self._slots_of(owner)
        states[states == WRITING] = FREE

    def reclaim_sent(self, owner: int, epoch: int) -> int:
        """Frees what a lost incarnation of an actor has sent and nobody has taken in.

        Only the process that takes in what this owner sends may call it.

        Args:
            owner: The actor.
            epoch: The lost incarnation; those before it are lost as well.

        Returns:
            How many slots were freed.
        """
        states, epochs = self._slots_of(owner)
        is_lost = (states == SENT) & (epochs <= epoch)
        states[is_lost] = FREE
        return int(np.count_nonzero(is_lost))

    def _slots_of(self, owner: int) -> tuple[Bytes, npt.NDArray[np.uint32]]:
        """States and incarnations of an owner's slots, as views; empty for a stranger."""
        first = owner * self._slots_per_owner
        mine = slice(first, first + self._slots_per_owner)
        return self._states[mine], self._epochs[mine]

    def hand_over(self, buffer: Bytes) -> int | None:
        """Gives the lease away: from now on another process frees the slot. So send it once.

        Returns:
            The slot; None if this process holds no lease of it, as of all other memory.
        """
        finalizer, slot = self._leases.pop(id(buffer.base), (None, -1))
        if finalizer is None:
            return None
        finalizer.detach()
        self._states[slot] = SENT if self._states[slot] == WRITING else PASSED
        return slot

    def attach(self, slot: int, epoch: int = 0) -> Bytes:
        """Takes over the lease of a slot that another process has handed over.

        Args:
            slot: Its number.
            epoch: The incarnation of its actor that wrote what is meant.

        Raises:
            WireError: There is no such slot, nobody has sent it, or it holds something else now.
        """
        if slot >= self._num_slots or self._states[slot] not in (SENT, PASSED):
            raise WireError(f"slot {slot} was never sent")
        if self._epochs[slot] != epoch:
            raise WireError(f"slot {slot} is that of another incarnation than {epoch}")
        self._states[slot] = HELD
        return self._lease(slot)

    def free(self, slot: int) -> None:
        """Frees a slot that was handed over to nobody."""
        self._states[slot] = FREE

    def _lease(self, slot: int) -> Bytes:
        """The rollout's bytes in a slot; frees the slot when no view of them is left."""
        whole = np.frombuffer(
            self._memory,
            np.uint8,
            count=self._slot_bytes,
            offset=self._first + slot * self._stride,
        )
        finalizer = weakref.finalize(whole, self._release, id(whole))
        finalizer.atexit = False
        self._leases[id(whole)] = (finalizer, slot)
        return whole[HEADER_BYTES:]

    def _release(self, key: int) -> None:
        _, slot = self._leases.pop(key)
        self.free(slot)


def _pages(num_bytes: int) -> int:
    """`num_bytes` rounded up to whole pages."""
    return -(-num_bytes // PAGE_BYTES) * PAGE_BYTES
