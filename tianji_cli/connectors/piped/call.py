"""A request to a keeper that is under way: its answers, and room for its input."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, TypeAlias

from engine.errors import HostUnreachableError
from tianji_cli.connectors.keeper.frames import CHUNK_BYTES, Consumed

Frame: TypeAlias = tuple[dict[str, Any], bytes]


class FrameSender(Protocol):
    """The link over which a request was made."""

    def send(self, header: Mapping[str, object], body: bytes = b"") -> None:
        """Sends a frame, or raises HostUnreachableError."""
        ...

    def unreachable(self, reason: str = "") -> HostUnreachableError:
        """The error for a connection that broke."""
        ...


class Call:
    """A request that is under way.

    Args:
        link: Where it was made.
        request: What is asked for.
        number: The request's.
        window: Most bytes of input that are under way.
    """

    def __init__(self, link: FrameSender, request: str, number: int, window: int) -> None:
        self.request = request
        self._link, self._number = link, number
        self._frames: queue.SimpleQueue[Frame | None] = queue.SimpleQueue()
        self._room, self._changed = window, threading.Condition()
        self._is_over = False

    def frames(self, silence_s: float | None) -> Iterator[Frame]:
        """All answers up to `done`. What the caller took is reported as consumed.

        Args:
            silence_s: Longest wait for one; None for any.

        Raises:
            HostUnreachableError: The connection broke, or is silent for longer.
        """
        consumed = {"out": Consumed(), "err": Consumed()}
        while True:
            try:
                frame = self._frames.get(timeout=silence_s)
            except queue.Empty:
                raise self._link.unreachable(f"no answer within {silence_s:.0f} s") from None
            if frame is None:
                raise self._link.unreachable()
            header, body = frame
            yield header, body
            if header["op"] == "done":
                return
            if body and (num_bytes := consumed[header["op"]].add(len(body))):
                self.say("more", of=header["op"], num_bytes=num_bytes)

    def give(self, data: bytes, silence_s: float | None) -> bool:
        """Sends input as there is room for it. False if no more is taken.

        Raises:
            HostUnreachableError: The connection broke, or nothing was taken for so long.
        """
        view = memoryview(data)
        while view:
            with self._changed:
                if not self._changed.wait_for(lambda: self._room > 0 or self._is_over, silence_s):
                    raise self._link.unreachable(f"nothing was taken within {silence_s:.0f} s")
                if self._is_over:
                    return False
                size = min(len(view), self._room, CHUNK_BYTES)
                self._room -= size
            self.say("in", bytes(view[:size]))
            view = view[size:]
        return True

    def say(self, op: str, body: bytes = b"", **more: object) -> None:
        """Sends a frame of this request.

        Raises:
            HostUnreachableError: The connection broke.
        """
        self._link.send({"id": self._number, "op": op, **more}, body)

    def abandon(self) -> None:
        """Its answer is not awaited any more."""
        with contextlib.suppress(HostUnreachableError):
            self.say("kill")
            self.say("close")

    def take(self, frame: Frame | None) -> None:
        """An answer has come; None if no more can come."""
        header: dict[str, Any] = {"op": "done"} if frame is None else frame[0]
        with self._changed:
            if header["op"] == "more":
                self._room += header["num_bytes"]
            self._is_over |= header["op"] == "done"
            self._is_over |= header["op"] == "eof" and header["of"] == "in"
            self._changed.notify_all()
        if header["op"] != "more":
            self._frames.put(frame)
