"""Memory barriers for memory that processes share, used by rings and shared weights."""

from __future__ import annotations

import platform
import threading

LINE_BYTES = 64
"""A cache line: words that different processes write are in different lines."""

_STORES_IN_ORDER = platform.machine() in ("x86_64", "AMD64", "i686")
"""Processors that reorder neither stores nor loads among themselves (Intel SDM, volume 3, 9.2)."""


class Fence:
    """Orders memory between processes.

    Python has no fence. Releasing a lock and taking it again is one on every processor: a release,
    then an acquisition that reads what the release wrote.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def full_barrier(self) -> None:
        """A full barrier: no load or store moves across it."""
        self._lock.release()
        self._lock.acquire()

    def tso_barrier(self) -> None:
        """Keeps stores in order among stores, and loads among loads."""
        if not _STORES_IN_ORDER:
            self.full_barrier()
