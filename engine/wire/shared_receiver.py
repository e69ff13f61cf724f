"""Rollouts that lie in shared memory, taken out of their rings in the order in which they came."""

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
"""While rings give something each time."""


class SharedReceiver:
    """What the rings of one process hold.

    Args:
        inbox: Of this process.
        codec: Reads the contents of a slot.
        sections: Where waiting and receiving are counted.

    Attributes:
        num_refused: Slots that held something else.
    """

    def __init__(self, inbox: IncomingRings, codec: Codec, sections: Sections) -> None:
        self.num_refused = 0
        self._inbox = inbox
        self._codec = codec
        self._pending: deque[Entry] = deque()
        self._num_taken = 0
        """How many times in a row there was something."""
        self._linger = sections.timed(WAITING, self._look_for_a_moment)
        self._take = sections.timed(RECEIVING, self._take_slot)

    @property
    def fds(self) -> frozenset[int]:
        """Can be read when somebody puts something into a ring while this process sleeps."""
        return self._inbox.doorbells

    @property
    def comes_first(self) -> bool:
        """Whether sockets need not be looked at this time, since rings gave something."""
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
        """What lies in rings although its actor sent it before this frame."""
        match message:
            case RolloutArrived(info=info):
                self._pending.extend(self._inbox.take_before_placeholder(info.actor))
            case TicketRequested():  # says which rollouts were sent: what is not here then is lost
                self._pending.extend(self._inbox.take())
        yield from self._take_pending()

    def fall_asleep(self) -> bool:
        """Asks to be woken; False if there is, or has just been, something."""
        return not self._num_taken and self._inbox.fall_asleep()

    def wake_up(self) -> None:
        """Cancels the request to be woken."""
        self._inbox.wake_up()

    def _take_pending(self) -> Iterator[tuple[str, AnyMessage | WireError]]:
        """What came out of rings; some is left if somebody looked at the first only."""
        while self._pending:
            yield self._take(*self._pending.popleft())

    def _take_slot(self, to: str, epoch: int, slot: int) -> tuple[str, AnyMessage | WireError]:
        try:
            return to, self._codec.take_in(epoch, slot)
        except WireError as error:
            self.num_refused += 1
            return "", error

    def _look_for_a_moment(self) -> None:
        """Where something has just come, the next is often near: looks for it for a moment, which
        costs less than to sleep and be woken."""
        deadline_s = time.perf_counter() + LINGER_S
        while not self._inbox.can_take() and time.perf_counter() < deadline_s:
            pass
