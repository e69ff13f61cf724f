"""Frames: two lengths, a header in JSON, and bytes. Pure, but for the thread that writes them."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import queue
import struct
import threading
from typing import Any

CHUNK_BYTES = 1 << 16
WINDOW_BYTES = 1 << 18
PUT_WINDOW_BYTES = 1 << 20
"""Files are sent before a run starts, when no report has to wait behind them."""
MAX_FRAME_BYTES = 1 << 24
_LENGTHS = struct.Struct("!II")


class FrameError(ValueError):
    """Bytes that are no frame."""


def encode(header: dict[str, Any], body: bytes = b"") -> bytes:
    """One frame. Texts can have undecodable bytes as surrogates."""
    text = json.dumps(header).encode("ascii")
    return _LENGTHS.pack(len(text), len(body)) + text + body


class Decoder:
    """Divides a stream of bytes into frames."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> list[tuple[dict[str, Any], bytes]]:
        """Headers and bodies of all complete frames.

        Raises:
            FrameError: What came is no frame.
        """
        self._data += data
        found, start = [], 0
        while len(self._data) - start >= _LENGTHS.size:
            num_text, num_body = _LENGTHS.unpack_from(self._data, start)
            if max(num_text, num_body) > MAX_FRAME_BYTES:
                raise FrameError(bytes(self._data[start : start + 200]))
            middle = start + _LENGTHS.size + num_text
            end = middle + num_body
            if len(self._data) < end:
                break
            header = _header(bytes(self._data[start + _LENGTHS.size : middle]))
            found.append((header, bytes(self._data[middle:end])))
            start = end
        del self._data[:start]
        return found


def _header(text: bytes) -> dict[str, Any]:
    try:
        header = json.loads(text)
    except ValueError as error:
        raise FrameError(text[:200]) from error
    if not isinstance(header, dict):
        raise FrameError(text[:200])
    return header


class Consumed:
    """How much of a stream was consumed and is still to be reported.

    It is reported in large pieces: a small frame more, just before an answer, would delay that
    wherever a TCP connection waits to fill its packets.
    """

    def __init__(self) -> None:
        self._num_bytes = 0

    def add(self, num_bytes: int) -> int:
        """What is to be reported now; 0 if it can wait."""
        self._num_bytes += num_bytes
        if self._num_bytes < WINDOW_BYTES // 4:
            return 0
        total, self._num_bytes = self._num_bytes, 0
        return total


def path_bytes(text: str) -> bytes:
    """A path, word or value as the system takes it, whatever the locale there is."""
    return text.encode("utf-8", "surrogateescape")


class Answers:
    """Frames to the other end. One thread writes them, so that nothing else waits for it; windows
    bound what is queued."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._frames: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write, daemon=True)
        self._thread.start()

    def send(self, number: int, op: str, body: bytes = b"", **more: object) -> None:
        self._frames.put(encode({"id": number, "op": op, **more}, body))

    def refuse(self, number: int, error: Exception) -> None:
        """Ends a request with what the system said."""
        code = getattr(error, "errno", None) or errno.EINVAL
        text = getattr(error, "strerror", None) or str(error)
        self.send(number, "done", error=code, text=text)

    def close(self, timeout_s: float) -> None:
        """Waits so long for the last of them to be written."""
        self._frames.put(b"")
        self._thread.join(timeout_s)

    def _write(self) -> None:
        while data := bytearray(self._frames.get()):
            with contextlib.suppress(queue.Empty):
                while len(data) < CHUNK_BYTES:
                    data += self._frames.get_nowait()
            view = memoryview(data)
            try:
                while view:
                    view = view[os.write(self._fd, view) :]
            except OSError:
                return  # nobody reads any more, which the end of the input will say
