"""Rings: notify a buffer of rollouts in shared memory, without a system call.

Each actor of a host has a single-producer, single-consumer ring to its buffer: slot numbers in
memory that both map, with a counter of entries sent, which only the actor writes, and one of
entries taken, which only the buffer writes. An actor that adds an entry signals the buffer's
*doorbell* only if the buffer sleeps:

    actor:   slot, entry | fence | sent += 1 | fence | asleep? -> doorbell
    buffer:                  asleep = 1 | fence | sent > taken? -> take : wait for doorbell, sockets

At least one side sees the write of the other, because each writes, fences, then reads. So several
rollouts cost one signal, or none. If an actor dies before it signals, its rollouts are found as
soon as anything else wakes the buffer, such as the message that this actor is lost.

Impossible counters, which only stray writes can cause, empty a ring: its entries are refused, and
later ones are accepted again.

A rollout without a free slot is sent as a frame, which a later one could overtake. It leaves a
placeholder in the ring: entries behind it wait until that frame has arrived. A request for a ticket
names the rollouts that were sent before, so rings are emptied before one is handed on.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from engine.errors import WireError
from engine.wire.fence import LINE_BYTES, Fence

FRAME = 1 << 31
"""Placeholder in an entry: the rollout is sent as a frame."""
_SLOT = FRAME - 1
NOWHERE = _SLOT
"""An invalid slot."""
_WORD = 2**64 - 1
_WORD_BYTES = 8
_LINE_WORDS = LINE_BYTES // _WORD_BYTES
_SENT, _TAKEN, _ENTRIES = 0, _LINE_WORDS, 2 * _LINE_WORDS
"""Words of a ring."""
Entry: TypeAlias = tuple[str, int, int]
"""Address of the buffer, incarnation of the actor, slot."""


class SpscRing:
    """The ring from one actor to its buffer.

    Args:
        words: Its own: the counters `sent` and `taken`, then the entries.
        asleep: One word, nonzero while the buffer sleeps.
        doorbell: The buffer's.
        to: The buffer's address.
    """

    def __init__(self, words: memoryview, asleep: memoryview, doorbell: _Doorbell, to: str) -> None:
        self._counters = words[: _TAKEN + 1]
        self._entries = words[_ENTRIES:]
        self._capacity = len(self._entries)
        self._asleep = asleep
        self._doorbell = doorbell
        self._fence = Fence()
        self.to = to

    def put(self, epoch: int, slot: int) -> None:
        """Announces a slot, or with `FRAME` that the next rollout is sent as a frame.

        Raises:
            WireError: It would overwrite an entry that was not taken yet.
        """
        counters = self._counters
        sent = counters[_SENT]
        if not 0 <= sent - counters[_TAKEN] < self._capacity:
            raise WireError(f"internal error: the send queue to {self.to} overflowed")
        self._entries[sent % self._capacity] = epoch << 32 | slot
        self._fence.tso_barrier()
        counters[_SENT] = (sent + 1) & _WORD
        self._fence.full_barrier()
        if self._asleep[0]:
            self._asleep[0] = 0
            self._doorbell.ring()

    def can_take(self) -> bool:
        """Whether `take` would give something."""
        counters = self._counters
        taken = counters[_TAKEN]
        if counters[_SENT] == taken:
            return False
        if not 0 < counters[_SENT] - taken <= self._capacity:
            return True
        self._fence.tso_barrier()
        return not self._entries[taken % self._capacity] & FRAME

    def take(self) -> list[tuple[int, int]]:
        """Takes all entries up to the first placeholder: (epoch, slot) each."""
        counters = self._counters
        sent, taken = counters[_SENT], counters[_TAKEN]
        if sent == taken:
            return []
        if not 0 < sent - taken <= self._capacity:
            counters[_TAKEN] = sent
            return [(0, NOWHERE)]
        self._fence.tso_barrier()
        found = []
        while taken < sent:
            entry = self._entries[taken % self._capacity]
            if entry & FRAME:
                break
            taken += 1
            found.append((entry >> 32, entry & _SLOT))
        counters[_TAKEN] = taken
        return found

    def pass_placeholder(self) -> None:
        """Passes the placeholder, since its frame has arrived."""
        counters = self._counters
        taken = counters[_TAKEN]
        if counters[_SENT] > taken and self._entries[taken % self._capacity] & FRAME:
            counters[_TAKEN] = taken + 1  # less than `sent`, so it fits

    def forget(self, epoch: int) -> None:
        """Skips entries of this incarnation and earlier ones. Only the buffer may call this."""
        counters = self._counters
        sent, taken = counters[_SENT], counters[_TAKEN]
        if sent - taken > self._capacity:
            taken = sent
        self._fence.tso_barrier()
        while taken < sent and self._entries[taken % self._capacity] >> 32 <= epoch:
            taken += 1
        counters[_TAKEN] = taken


class RingSet:
    """One ring per actor and one doorbell per buffer; made before the processes are forked.

    Args:
        buffers: For each actor, the number of the buffer that it sends to.
        capacity: Entries of a ring: at least twice the slots of an actor, for placeholders.
    """

    def __init__(self, buffers: Sequence[int], capacity: int) -> None:
        num_doorbells = max(buffers, default=-1) + 1
        stride = _ENTRIES + -(-capacity // _LINE_WORDS) * _LINE_WORDS
        first = num_doorbells * _LINE_WORDS
        size = max(1, first + len(buffers) * stride) * _WORD_BYTES
        self._memory = mmap.mmap(-1, size)
        words = memoryview(self._memory).cast("Q")
        self._asleep = [words[b * _LINE_WORDS : b * _LINE_WORDS + 1] for b in range(num_doorbells)]
        self._doorbells = [_Doorbell() for _ in range(num_doorbells)]
        self._fence = Fence()
        self._rings = [
            SpscRing(
                words[first + actor * stride :][: _ENTRIES + capacity],
                self._asleep[buffer],
                self._doorbells[buffer],
                f"buffer-{buffer}",
            )
            for actor, buffer in enumerate(buffers)
        ]

    def of(self, actor: int) -> SpscRing | None:
        """This actor's ring; None if it has none."""
        return self._rings[actor] if actor < len(self._rings) else None

    def inbox(self, addresses: Sequence[str]) -> IncomingRings | None:
        """The rings of the process with these roles; None if no actor here sends to them."""
        rings = {a: ring for a, ring in enumerate(self._rings) if ring.to in addresses}
        if not rings:
            return None
        numbers = sorted({int(ring.to.rpartition("-")[2]) for ring in rings.values()})
        asleep = [self._asleep[number] for number in numbers]
        return IncomingRings(
            rings, asleep, [self._doorbells[number] for number in numbers], self._fence
        )


class IncomingRings:
    """The rings that end in one process.

    Args:
        rings: By actor.
        asleep, doorbells: Of the buffers that are here.
        fence: Orders the writes and reads of the two ends.

    Attributes:
        doorbells: Descriptors that are readable after a signal.
    """

    def __init__(
        self,
        rings: Mapping[int, SpscRing],
        asleep: Sequence[memoryview],
        doorbells: Sequence[_Doorbell],
        fence: Fence,
    ) -> None:
        self._by_actor = rings
        self._rings = list(rings.values())
        self._asleep = asleep
        self._doorbells = doorbells
        self._fence = fence
        self.doorbells = frozenset(doorbell.fd for doorbell in doorbells)

    def can_take(self) -> bool:
        """Whether `take` would give something."""
        return any(ring.can_take() for ring in self._rings)

    def take(self) -> list[Entry]:
        """All entries, actor by actor."""
        return [(ring.to, *entry) for ring in self._rings for entry in ring.take()]

    def take_before_placeholder(self, actor: int) -> list[Entry]:
        """The entries before a frame of this actor that has arrived; passes its placeholder."""
        ring = self._by_actor.get(actor)
        if ring is None:
            return []
        entries = [(ring.to, *entry) for entry in ring.take()]
        ring.pass_placeholder()
        return entries

    def fall_asleep(self) -> bool:
        """Requests doorbell signals.

        Returns:
            False if there are entries already: then the process must not wait.
        """
        self._say_asleep(1)
        self._fence.full_barrier()
        if not self.can_take():
            return True
        self._say_asleep(0)
        return False

    def wake_up(self) -> None:
        """Cancels the request for doorbell signals."""
        self._say_asleep(0)
        for doorbell in self._doorbells:
            doorbell.quiet()

    def _say_asleep(self, value: int) -> None:
        for word in self._asleep:
            word[0] = value


class _Doorbell:
    """An event that all forked processes share; it has no name and ends with the last of them."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def ring(self) -> None:
        os.eventfd_write(self.fd, 1)

    def quiet(self) -> None:
        try:
            os.eventfd_read(self.fd)
        except BlockingIOError:
            return  # no signal is pending

    def __del__(self) -> None:
        os.close(self.fd)
