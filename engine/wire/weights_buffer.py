"""Weights between the processes of one host: written once by a learner, read by all others.

A triple buffer: each learner has three slots in memory that all roles of the host map. It never
overwrites the slot with its latest weights, so these are always complete, even if it dies while
writing. A reader copies the latest out, then checks whether that slot was written in the meantime;
this happens only if the learner has published twice since, and then there are newer weights.

The message is a header that announces new weights; a reader gets the latest.
"""

from __future__ import annotations

import mmap

import numpy as np
import numpy.typing as npt

from engine.errors import WireError
from engine.wire.fence import LINE_BYTES, Fence

Bytes = npt.NDArray[np.uint8]

NUM_SLOTS = 3
MAX_TRIES = 1000
_LATEST = NUM_SLOTS
"""Word of a learner: its latest slot, after the versions (plus one; 0: none) of all slots."""
_LINE_WORDS = LINE_BYTES // 8


class SharedWeights:
    """The slots of a host's learners; made before its processes are forked.

    Args:
        num_learners: Each has one.
        num_bytes: Size of the flat parameters.
    """

    def __init__(self, num_learners: int, num_bytes: int) -> None:
        self._num_learners = num_learners
        self._num_bytes = num_bytes
        self._stride = -(-num_bytes // LINE_BYTES) * LINE_BYTES
        first = num_learners * LINE_BYTES
        size = first + num_learners * NUM_SLOTS * self._stride
        self._memory = mmap.mmap(-1, max(1, size))
        self._words = memoryview(self._memory)[:first].cast("Q")
        self._slots = [
            np.frombuffer(self._memory, np.uint8, num_bytes, first + number * self._stride)
            for number in range(num_learners * NUM_SLOTS)
        ]
        self._fence = Fence()

    def publish(self, learner: int, version: int, buffer: Bytes) -> None:
        """Publishes weights of a learner; does nothing if they are the latest already."""
        words, at = self._words, learner * _LINE_WORDS
        latest = words[at + _LATEST] % NUM_SLOTS
        if words[at + latest] == version + 1:
            return
        slot = (latest + 1) % NUM_SLOTS
        words[at + slot] = 0
        self._fence.full_barrier()
        np.copyto(self._slots[learner * NUM_SLOTS + slot], buffer)
        self._fence.full_barrier()
        words[at + slot] = version + 1
        self._fence.full_barrier()
        words[at + _LATEST] = slot

    def read(self, learner: int, version: int) -> tuple[int, Bytes]:
        """A learner's latest version, at least the given one, and a copy of its weights, uint8
        [num_bytes].

        Raises:
            WireError: There are no weights that new.
        """
        if learner >= self._num_learners:
            raise WireError(f"there are no shared weights of learner {learner}")
        words, at = self._words, learner * _LINE_WORDS
        buffer = np.empty(self._num_bytes, np.uint8)
        for _ in range(MAX_TRIES):
            slot = words[at + _LATEST]
            if slot >= NUM_SLOTS:
                break
            found = words[at + slot]
            self._fence.full_barrier()
            np.copyto(buffer, self._slots[learner * NUM_SLOTS + slot])
            self._fence.full_barrier()
            if found > version and words[at + slot] == found:
                return found - 1, buffer
            if 0 < found <= version:
                break
        raise WireError(f"weights {version} of learner {learner} are not in its slots")
