"""The letters and receipts of one process, and which messages are letters."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TypeGuard

from engine.messages import COORDINATOR, Alive, AnyMessage, Message, ProbeAnswered, Receipt
from engine.messages import SmallMessage as Small
from engine.wire import header
from engine.wire.codec import Codec
from engine.wire.header import Buffer
from engine.wire.letters import Outbox, Receipts

REPEATED = (Alive, ProbeAnswered)
"""Said to the coordinator again and again, so that it does not matter if one is lost."""


class Mail:
    """What a process sends to the coordinator on another host, and what comes of it.

    Args:
        codec: Messages to frames.
    """

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._outbox = Outbox(session=time.monotonic_ns())
        self._receipts = Receipts()

    def put(self, message: AnyMessage, to: str) -> bool:
        """Keeps a message until it has come; False if it is none that has to."""
        if to != COORDINATOR or not _is_letter(message):
            return False
        box = self._outbox
        box.put(self._codec.encode_letter(message, to, box.session, box.next_number))
        return True

    def due(self) -> Iterator[tuple[str, Buffer]]:
        """What to send now, and to whom."""
        now_s = time.monotonic()
        for letter in self._outbox.due(now_s):
            yield COORDINATOR, letter
        for sender, session, next_number in self._receipts.due(now_s):
            receipt = Receipt(session=session, next_number=next_number)
            yield from ((sender, frame) for frame in self._codec.encode(receipt, sender))

    def wait_s(self, timeout_s: float | None) -> float | None:
        """How long to wait for messages, if that long at most: then something may be due."""
        due_s = self._outbox.wait_s(time.monotonic())
        if due_s is None or timeout_s is None:
            return timeout_s if due_s is None else due_s
        return min(timeout_s, due_s)

    def enter(self, sender: str, frame: Buffer, message: AnyMessage) -> bool:
        """Keeps count of what has come; False if it is for no role."""
        if isinstance(message, Receipt):
            self._outbox.receipt(message.session, message.next_number, time.monotonic())
            return False
        if header.kind_of(frame) != header.KIND_LETTER:
            return True
        session, number = header.unpack_letter_prefix(frame)
        return self._receipts.take(sender, session, number, time.monotonic())


def _is_letter(message: AnyMessage) -> TypeGuard[Small]:
    return isinstance(message, Message) and not isinstance(message, REPEATED)
