"""The sequenced messages and acks of one process, and which messages are sequenced."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TypeGuard

from engine.messages import (
    COORDINATOR,
    Alive,
    AnyMessage,
    Message,
    ProgressShown,
    Receipt,
    SmallMessage,
)
from engine.wire import header
from engine.wire.codec import Codec
from engine.wire.header import Buffer
from engine.wire.reliable import Deadlines, ReliableReceiver, ReliableSender

REPEATED = (Alive, ProgressShown)
"""Messages that are repeated; an old one is of no use."""


class ReliableLinks:
    """The reliable links between a process and the coordinator of another host.

    Args:
        codec: Messages to frames.
        is_coordinator: Whether this process is the one that all others write to.
    """

    def __init__(self, codec: Codec, *, is_coordinator: bool) -> None:
        self._codec = codec
        self._is_coordinator = is_coordinator
        self._senders: dict[str, ReliableSender] = {}
        self._receiver = ReliableReceiver()
        self._ready: dict[str, None] = {}
        """Destinations with messages to send now, in order."""
        self._looks = Deadlines()
        """When each sender with unacknowledged messages must be checked again."""
        self._due_s = math.inf
        """Nothing is due before this time; checked in every loop iteration."""

    def put(self, message: AnyMessage, to: str, peer: str) -> bool:
        """Queues a message until it is acknowledged.

        Returns:
            False if it is not a sequenced message.
        """
        if not (self._is_coordinator or to == COORDINATOR) or not _is_sequenced(message):
            return False
        box = self._senders.get(peer)
        if box is None:
            box = self._senders[peer] = ReliableSender(session=time.monotonic_ns())
        box.put(self._codec.encode_sequenced(message, to, box.session, box.next_number))
        self._is_ready(peer)
        return True

    def tend(
        self, hand_over: Callable[[str, list[Buffer]], bool], timeout_s: float | None = None
    ) -> float | None:
        """Sends what is due now.

        Args:
            hand_over: Hands frames to the connection to a process; False if there is none.
            timeout_s: How long the caller would wait for messages; None: for ever.

        Returns:
            How long it can wait.
        """
        now_s = time.monotonic()
        if now_s >= self._due_s:
            self._send(hand_over, now_s)
        wait_s = max(0.0, self._due_s - now_s)
        if timeout_s is None:
            return None if wait_s == math.inf else wait_s
        return min(timeout_s, wait_s)

    def _send(self, hand_over: Callable[[str, list[Buffer]], bool], now_s: float) -> None:
        ready = dict.fromkeys((*self._ready, *self._looks.take(now_s)))
        self._ready.clear()
        for peer in ready:
            if (box := self._senders.get(peer)) is None:
                continue
            if not all(hand_over(peer, [message]) for message in box.due(now_s)):
                box.defer(now_s)
            if (wait_s := box.wait_s(now_s)) is not None:
                self._looks.set(peer, now_s + wait_s)
        for sender, session, next_number in self._receiver.due(now_s):
            ack = Receipt(session=session, next_number=next_number)
            hand_over(sender, self._codec.encode(ack, sender))
        self._due_s = min(self._receiver.next_s, self._looks.next_s)

    def _is_ready(self, peer: str) -> None:
        self._ready[peer] = None
        self._due_s = 0.0

    def enter(self, sender: str, frame: Buffer, message: AnyMessage) -> bool:
        """Tracks a received message; False if it is not for a role."""
        if isinstance(message, Receipt):
            if (box := self._senders.get(sender)) is not None:
                box.ack(message.session, message.next_number, time.monotonic())
                self._is_ready(sender)
            return False
        if header.kind_of(frame) != header.KIND_SEQUENCED:
            return True
        session, number = header.unpack_sequence_prefix(frame)
        if self._receiver.is_successor(sender, session):
            self._senders.pop(sender, None)  # it was for a previous incarnation
        now_s = time.monotonic()
        is_new = self._receiver.take(sender, session, number, now_s)
        self._due_s = min(self._due_s, self._receiver.due_s(sender))
        return is_new


def _is_sequenced(message: AnyMessage) -> TypeGuard[SmallMessage]:
    """Whether a message is sequenced: all small ones, except those that are repeated anyway."""
    return isinstance(message, Message) and not isinstance(message, REPEATED)
