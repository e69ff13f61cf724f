"""The letters and receipts of one process, and which messages are letters."""

from __future__ import annotations

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
from engine.wire.letters import Outbox, Receipts


class Mail:
    """What a process and the coordinator of another host say to each other.

    Args:
        codec: Messages to frames.
        is_coordinator: Whether this process is the one that all others write to.
    """

    def __init__(self, codec: Codec, *, is_coordinator: bool) -> None:
        self._codec = codec
        self._is_coordinator = is_coordinator
        self._outboxes: dict[str, Outbox] = {}
        self._receipts = Receipts()

    def put(self, message: AnyMessage, to: str, peer: str) -> bool:
        """Keeps a message to a role of this process until it has come.

        Returns:
            False if it is none that has to come.
        """
        if not (self._is_coordinator or to == COORDINATOR) or not _is_letter(message):
            return False
        box = self._outboxes.get(peer)
        if box is None:
            box = self._outboxes[peer] = Outbox(session=time.monotonic_ns())
        box.put(self._codec.encode_letter(message, to, box.session, box.next_number))
        return True

    def send(self, hand_over: Callable[[str, list[Buffer]], bool]) -> None:
        """Sends what is due now.

        Args:
            hand_over: Gives frames to the connection to a process; False if there is none.
        """
        now_s = time.monotonic()
        for peer, box in self._outboxes.items():
            if not all(hand_over(peer, [letter]) for letter in box.due(now_s)):
                box.defer()
        for sender, session, next_number in self._receipts.due(now_s):
            receipt = Receipt(session=session, next_number=next_number)
            hand_over(sender, self._codec.encode(receipt, sender))

    def wait_s(self, timeout_s: float | None) -> float | None:
        """How long to wait for messages, if that long at most: then something may be due."""
        now_s = time.monotonic()
        waits = [self._receipts.wait_s(now_s), *(b.wait_s(now_s) for b in self._outboxes.values())]
        return min((wait for wait in (timeout_s, *waits) if wait is not None), default=None)

    def enter(self, sender: str, frame: Buffer, message: AnyMessage) -> bool:
        """Keeps count of what has come; False if it is for no role."""
        now_s = time.monotonic()
        if isinstance(message, Receipt):
            if (box := self._outboxes.get(sender)) is not None:
                box.receipt(message.session, message.next_number, now_s)
            return False
        if header.kind_of(frame) != header.KIND_LETTER:
            return True
        session, number = header.unpack_letter_prefix(frame)
        if self._receipts.is_successor(sender, session):
            self._outboxes.pop(sender, None)  # that was for the one that is gone
        return self._receipts.take(sender, session, number, now_s)


def _is_letter(message: AnyMessage) -> TypeGuard[SmallMessage]:
    """All small ones, but not what is said again and again and means nothing later."""
    return isinstance(message, Message) and not isinstance(message, Alive | ProgressShown)
