"""The limit, and copying in one process.

The limit: the same two copies, by two processes through one shared mapping, with no notification:
both spin on a counter. Nothing that hands over memory between two processes can be faster.
"""

from __future__ import annotations

import mmap
import sys
import time
from typing import Any

import numpy as np

from tianji_cli.bench.transport.programs.harness import main, read_job
from tianji_cli.bench.transport.programs.workers import Ends, pattern

PAGE_BYTES = 4096
HUGE_PAGE_BYTES = 2**21
WORKING_SET_BYTES = 2**20
MIN_SLOTS, MAX_SLOTS = 4, 16


def num_slots(size_bytes: int) -> int:
    """Messages that can be in transit: enough to keep both ends busy, in few cache lines."""
    return max(MIN_SLOTS, min(MAX_SLOTS, WORKING_SET_BYTES // size_bytes))


class Limit(Ends):
    """One sender and one receiver, both spinning."""

    def __init__(self, job: dict[str, Any], size_bytes: int) -> None:
        super().__init__(job, size_bytes)
        stride = -(-size_bytes // PAGE_BYTES) * PAGE_BYTES
        self._count = num_slots(size_bytes)
        self._memory = mmap.mmap(-1, PAGE_BYTES + self._count * stride)
        if len(self._memory) >= HUGE_PAGE_BYTES:
            self._memory.madvise(mmap.MADV_HUGEPAGE)
        self._counters = memoryview(self._memory).cast("Q")
        self._slots = [
            np.frombuffer(self._memory, np.uint8, size_bytes, PAGE_BYTES + i * stride)
            for i in range(self._count)
        ]
        self._position = 0

    def send(self, source: np.ndarray, count: int) -> None:
        counters, slots, position = self._counters, self._slots, self._position
        for _ in range(count):
            while position - counters[8] >= self._count:
                pass
            np.copyto(slots[position % self._count], source)
            position += 1
            counters[0] = position
        self._position = position

    def receive(self, target: np.ndarray, count: int) -> None:
        counters, slots, position = self._counters, self._slots, self._position
        for _ in range(count):
            while counters[0] <= position:
                pass
            np.copyto(target, slots[position % self._count])
            position += 1
            counters[8] = position
        self._position = position


class Memcpy(Ends):
    """One copy, within one process."""

    is_pulled = True

    def __init__(self, job: dict[str, Any], size_bytes: int) -> None:
        super().__init__(job, size_bytes)
        self._source = pattern(0, size_bytes)

    def receive(self, target: np.ndarray, count: int) -> None:
        source = self._source
        for _ in range(count):
            np.copyto(target, source)

    def pull_stamped(self, target: np.ndarray) -> None:
        self._source[:8].view("<i8")[0] = time.monotonic_ns()
        np.copyto(target, self._source)
        self._source[:8] = 0


if __name__ == "__main__":
    main({"limit": Limit, "memcpy": Memcpy}[sys.argv[2]], read_job())
