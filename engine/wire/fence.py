"""The order of reads and writes in memory that processes share: what rings and shared weights rest
on."""

from __future__ import annotations

import platform
import threading

LINE_BYTES = 64
"""A cache line: words that different processes write are in different lines."""

_STORES_IN_ORDER = platform.machine() in ("x86_64", "AMD64", "i686")
"""Processors that let no store overtake a store, nor a load a load (Intel SDM, volume 3, 9.2)."""


class Fence:
    """Orders memory between processes.

    Python has no fence of its own. Releasing a lock and taking it again is one on every processor:
    a release, then an acquisition that reads what the release wrote.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def full_barrier(self) -> None:
        """Nothing moves across this in either direction."""
        self._lock.release()
        self._lock.acquire()

    def tso_barrier(self) -> None:
        """No store moves across this before a store, nor a load before a load."""
        if not _STORES_IN_ORDER:
            self.full_barrier()
