"""Messages to and from the coordinator, delivered once and in order even if a connection breaks
(a go-back-N ARQ).

Reports of roles become the trace, from which every figure is made, and messages of the coordinator
start and stop roles. Between hosts they are all sequenced messages, kept until there is an ack.

    sender  4 5 6 ->              receiver  -> next is 5       4 is done with; 5 and 6 are kept
    nothing more for a while:     5 once more
                                            -> next is 7       both have come, the ack was lost
                                            -> next is 6       6 was lost with 5: continues from 6

Messages on a connection stay in order, so whatever was sent before a repeated message has arrived
before it or is lost. At most `WINDOW` messages are with the connection; others wait here, so that a
host that is cut off for a while fills no queue beyond its mark.

Pure: no sockets, no clock.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from itertools import islice

from engine.wire.header import Buffer

WINDOW = 256
REPEAT_S = 2.0
"""A sequenced message without an ack after this long is sent again."""
RECONNECT_S = 0.1
"""How often a missing connection is looked for."""
ACK_S = 0.5
ACK_MESSAGES = WINDOW // 4
"""Acks are delayed by at most this many seconds or messages; out of order, they are not delayed."""


class Deadlines:
    """Keys with a time each: a thousand peers cost no more per loop iteration than one.

    Setting and taking one costs the logarithm of their number.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, str]] = []
        self._due_s: dict[str, float] = {}

    def set(self, key: str, due_s: float) -> None:
        """Sets the time of `key`; an earlier time is kept."""
        if due_s < self._due_s.get(key, math.inf):
            self._due_s[key] = due_s
            heapq.heappush(self._heap, (due_s, key))

    def get(self, key: str) -> float:
        """When `key` is due; infinite if it has no time."""
        return self._due_s.get(key, math.inf)

    def take(self, now_s: float) -> list[str]:
        """Removes and returns the keys that are due."""
        found = []
        while self._heap and self._heap[0][0] <= now_s:
            due_s, key = heapq.heappop(self._heap)
            if self._due_s.get(key) == due_s:
                del self._due_s[key]
                found.append(key)
        return found

    @property
    def next_s(self) -> float:
        """A lower bound of the next due time; infinite if there is none."""
        return self._heap[0][0] if self._heap else math.inf


class ReliableSender:
    """The sequenced messages of one process to another.

    Args:
        session: Grows with each incarnation of this process, so that the receiver starts again.
    """

    def __init__(self, session: int) -> None:
        self.session = session
        self._kept: deque[Buffer] = deque()
        """Messages without an ack, the oldest first."""
        self._first = 0
        """Number of the oldest."""
        self._next = 0
        """Number of the first message not yet handed to the connection."""
        self._repeated: int | None = None
        self._since_s = 0.0
        """When the oldest was sent, or sent again."""
        self._is_deferred = False

    @property
    def next_number(self) -> int:
        """Number of the next message."""
        return self._first + len(self._kept)

    def put(self, message: Buffer) -> None:
        """A sequenced message, sealed with `session` and `next_number`."""
        self._kept.append(message)

    def due(self, now_s: float) -> list[Buffer]:
        """Messages to hand to the connection now."""
        self._is_deferred = False
        if self._first < self._next and now_s >= self._since_s + REPEAT_S:
            self._repeated, self._since_s = self._first, now_s
            return [self._kept[0]]
        end = min(self.next_number, self._first + WINDOW)
        if self._repeated is not None or self._next >= end:
            return []
        if self._next == self._first:
            self._since_s = now_s
        messages = list(islice(self._kept, self._next - self._first, end - self._first))
        self._next = end
        return messages

    def defer(self, now_s: float) -> None:
        """Records a lost connection: unacknowledged messages are sent once there is a new one."""
        self._next, self._repeated = self._first, None
        self._since_s, self._is_deferred = now_s, True

    def ack(self, session: int, next_number: int, now_s: float) -> None:
        """Handles an ack: all messages before `next_number` have arrived."""
        if session != self.session or not self._first < next_number <= self._next:
            return
        for _ in range(next_number - self._first):
            self._kept.popleft()
        if self._repeated is not None and next_number == self._repeated + 1:
            self._next = next_number
        self._first, self._repeated, self._since_s = next_number, None, now_s

    def wait_s(self, now_s: float) -> float | None:
        """When `due` must be called next; None if nothing waits for an ack."""
        after_s = RECONNECT_S if self._is_deferred else REPEAT_S
        return max(0.0, self._since_s + after_s - now_s) if self._kept else None


class _Progress:
    def __init__(self, session: int) -> None:
        self.session = session
        self.next_number = 0
        self.said = 0
        """Number in the last ack."""


class ReliableReceiver:
    """The receiving side for the messages of all other processes."""

    def __init__(self) -> None:
        self._senders: dict[str, _Progress] = {}
        self._due = Deadlines()
        """When each pending ack is due, by sender."""

    def is_successor(self, sender: str, session: int) -> bool:
        """Whether a sequenced message of this session shows that an earlier incarnation is gone."""
        item = self._senders.get(sender)
        return item is not None and item.session < session

    def take(self, sender: str, session: int, number: int, now_s: float) -> bool:
        """Handles a sequenced message; False if it is a duplicate, or an earlier one is missing."""
        item = self._senders.get(sender)
        if item is None or item.session < session:
            item = self._senders[sender] = _Progress(session)
        if item.session != session:
            return False
        is_next = number == item.next_number
        item.next_number += is_next
        is_urgent = not is_next or item.next_number - item.said >= ACK_MESSAGES
        self._due.set(sender, now_s if is_urgent else now_s + ACK_S)
        return is_next

    def due_s(self, sender: str) -> float:
        """When the ack for this sender is due; infinite if none is."""
        return self._due.get(sender)

    def due(self, now_s: float) -> list[tuple[str, int, int]]:
        """Acks to send now: destination, session, and the next expected number."""
        found = []
        for sender in self._due.take(now_s):
            item = self._senders[sender]
            item.said = item.next_number
            found.append((sender, item.session, item.next_number))
        return found

    @property
    def next_s(self) -> float:
        """When the next ack is due, if not before; infinite if none is."""
        return self._due.next_s
