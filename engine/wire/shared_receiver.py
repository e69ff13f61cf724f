"""Receives rollouts in shared memory, from their rings, in the order of arrival."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator

from engine.errors import WireError
from engine.messages import AnyMessage, RolloutArrived, TicketRequested
from engine.timing import RECEIVING, WAITING, Sections
from engine.wire.codec import Codec
from engine.wire.spsc_ring import Entry, IncomingRings

LINGER_S = 20e-6
LOOKS_AT_SOCKETS_EVERY = 16
"""Receives from rings before sockets are polled again."""


class SharedReceiver:
    """Receives from the rings of one process.

    Args:
        inbox: Of this process.
        codec: Reads the contents of a slot.
        sections: Where waiting and receiving are counted.

    Attributes:
        num_refused: Slots with other contents than announced.
    """

    def __init__(self, inbox: IncomingRings, codec: Codec, sections: Sections) -> None:
        self.num_refused = 0
        self._inbox = inbox
        self._codec = codec
        self._pending: deque[Entry] = deque()
        self._num_taken = 0
        """Consecutive receives with a result."""
        self._linger = sections.timed(WAITING, self._look_for_a_moment)
        self._take = sections.timed(RECEIVING, self._take_slot)

    @property
    def fds(self) -> frozenset[int]:
        """Readable when an actor adds to a ring while this process sleeps."""
        return self._inbox.doorbells

    @property
    def comes_first(self) -> bool:
        """Whether to skip polling the sockets this time, since rings had entries."""
        return self._num_taken % LOOKS_AT_SOCKETS_EVERY != 0

    def take(self, may_wait: bool) -> Iterator[tuple[str, AnyMessage | WireError]]:
        """Everything that is there."""
        if may_wait and self._num_taken:
            self._linger()
        self._pending.extend(self._inbox.take())
        has_taken = bool(self._pending)
        yield from self._take_pending()
        self._num_taken = self._num_taken + 1 if has_taken else 0

    def take_sent_before(
        self, message: AnyMessage | WireError
    ) -> Iterator[tuple[str, AnyMessage | WireError]]:
        """Messages still in rings although their actor sent them before this frame."""
        match message:
            case RolloutArrived(info=info):
                self._pending.extend(self._inbox.take_before_placeholder(info.actor))
            case TicketRequested():  # names the sent rollouts: missing ones are lost
                self._pending.extend(self._inbox.take())
        yield from self._take_pending()

    def fall_asleep(self) -> bool:
        """Requests to be woken; False if there are, or just were, entries."""
        return not self._num_taken and self._inbox.fall_asleep()

    def wake_up(self) -> None:
        """Cancels the request to be woken."""
        self._inbox.wake_up()

    def _take_pending(self) -> Iterator[tuple[str, AnyMessage | WireError]]:
        """Entries taken from rings; some remain if the caller stopped after the first."""
        while self._pending:
            yield self._take(*self._pending.popleft())

    def _take_slot(self, to: str, epoch: int, slot: int) -> tuple[str, AnyMessage | WireError]:
        try:
            return to, self._codec.take_in(epoch, slot)
        except WireError as error:
            self.num_refused += 1
            return "", error

    def _look_for_a_moment(self) -> None:
        """After a receive the next entry is often close: polls for a moment, which costs less than
        to sleep and be woken."""
        deadline_s = time.perf_counter() + LINGER_S
        while not self._inbox.can_take() and time.perf_counter() < deadline_s:
            pass
