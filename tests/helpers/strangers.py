"""Strangers who connect to a port of a run, say something that is no key of it, and stay."""

from __future__ import annotations

import heapq
import selectors
import socket
import threading
import time
from collections.abc import Sequence
from typing import Self

REST_S = 1.0
"""So long a stranger who was hung up on waits before it comes again."""
LOOK_S = 0.02
HALF_GREETING = b"\xff" + b"\0" * 8 + b"\x7f\x03\x00PLAIN"
GREETING = HALF_GREETING.ljust(64, b"\0")
WORDS = (b"", b"GET / HTTP/1.1\r\n\r\n".ljust(64), HALF_GREETING, GREETING)
"""Nothing, something else, half of what every connection begins with, and all of it."""


class Strangers:
    """So many at a time, all from one thread; use as a context manager.

    Args:
        address: Host and port.
        count: How many are there at any time; whoever is hung up on comes again.
        words: What they say, by turns.
    """

    def __init__(
        self, address: tuple[str, int], count: int, words: Sequence[bytes] = WORDS
    ) -> None:
        self._address = address
        self._words = words
        self._waiting = [(0.0, number) for number in range(count)]
        self._selector = selectors.DefaultSelector()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="strangers")
        self.num_hung_up = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            self._leave(key)
        self._selector.close()

    def _run(self) -> None:
        while not self._is_over.is_set():
            while self._waiting and self._waiting[0][0] <= time.monotonic():
                self._call(heapq.heappop(self._waiting)[1])
            for key, _ in self._selector.select(LOOK_S):
                self._go_on(key)

    def _call(self, number: int) -> None:
        stranger = socket.socket()
        stranger.setblocking(False)
        stranger.connect_ex(self._address)
        self._selector.register(stranger, selectors.EVENT_WRITE, number)

    def _go_on(self, key: selectors.SelectorKey) -> None:
        """It is connected, was answered, or was hung up on."""
        stranger = key.fileobj
        assert isinstance(stranger, socket.socket)
        try:
            if key.events == selectors.EVENT_WRITE:
                stranger.sendall(self._words[key.data % len(self._words)])
                self._selector.modify(stranger, selectors.EVENT_READ, key.data)
                return
            if stranger.recv(4096):
                return
        except OSError:
            pass  # hung up on as well
        self.num_hung_up += 1
        self._leave(key)
        heapq.heappush(self._waiting, (time.monotonic() + REST_S, key.data))

    def _leave(self, key: selectors.SelectorKey) -> None:
        self._selector.unregister(key.fileobj)
        stranger = key.fileobj
        assert isinstance(stranger, socket.socket)
        stranger.close()
