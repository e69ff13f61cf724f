"""Weights between the processes of one host: written once by a learner, read by all others.

A triple buffer: each learner has three slots in memory that all roles of the host map. It never
overwrites the slot with its latest weights, so these are always complete, even if it dies while
writing. A reader copies the latest out, then checks whether that slot was written in the meantime;
this happens only if the learner has published twice since, and then there are newer weights.

The message is a header that announces new weights; a reader gets the latest.

If older versions are requested as well, there are more slots, each for every so-manieth version,
and a reader gets the announced one.
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
_WORD_BYTES = 8


class SharedWeights:
    """The slots of a host's learners; made before its processes are forked.

    Args:
        num_learners: Each has one.
        num_bytes: Size of the flat parameters.
        num_kept: Consecutive versions that readers can request, the latest included; None if they
            take only the latest.
    """

    def __init__(self, num_learners: int, num_bytes: int, num_kept: int | None = None) -> None:
        self._num_learners = num_learners
        self._num_bytes = num_bytes
        self._keeps = num_kept is not None
        self._num_slots = NUM_SLOTS if num_kept is None else num_kept + 1
        self._latest = self._num_slots
        """Word of a learner: its latest slot, after the versions (plus one; 0: none) of all."""
        self._line_words = _lines((self._num_slots + 1) * _WORD_BYTES) // _WORD_BYTES
        self._stride = _lines(num_bytes)
        first = num_learners * self._line_words * _WORD_BYTES
        size = first + num_learners * self._num_slots * self._stride
        self._memory = mmap.mmap(-1, max(1, size))
        self._words = memoryview(self._memory)[:first].cast("Q")
        self._slots = [
            np.frombuffer(self._memory, np.uint8, num_bytes, first + number * self._stride)
            for number in range(num_learners * self._num_slots)
        ]
        self._fence = Fence()

    def publish(self, learner: int, version: int, buffer: Bytes) -> None:
        """Publishes weights of a learner; does nothing if that is done already."""
        words, at = self._words, learner * self._line_words
        latest = words[at + self._latest] % self._num_slots
        slot = version % self._num_slots if self._keeps else (latest + 1) % self._num_slots
        if version + 1 in (words[at + latest], words[at + slot]):
            return
        is_newest = version + 1 > words[at + latest]
        words[at + slot] = 0
        self._fence.full_barrier()
        np.copyto(self._slots[learner * self._num_slots + slot], buffer)
        self._fence.full_barrier()
        words[at + slot] = version + 1
        self._fence.full_barrier()
        if is_newest:
            words[at + self._latest] = slot

    def read(self, learner: int, version: int) -> tuple[int, Bytes]:
        """A copy of a learner's weights, uint8 [num_bytes], and their version: the given one if it
        is kept, otherwise the latest, which is no older.

        Raises:
            WireError: There are no weights that new.
        """
        if learner >= self._num_learners:
            raise WireError(f"there are no shared weights of learner {learner}")
        buffer = np.empty(self._num_bytes, np.uint8)
        if self._keeps and self._copy(learner, version % self._num_slots, buffer) == version:
            return version, buffer
        words, at = self._words, learner * self._line_words
        for _ in range(MAX_TRIES):
            slot = words[at + self._latest]
            if slot >= self._num_slots:
                break
            found = self._copy(learner, slot, buffer)
            if found is not None and found >= version:
                return found, buffer
            if found is not None and 0 <= found < version:
                break
        raise WireError(f"weights {version} of learner {learner} are not in its slots")

    def _copy(self, learner: int, slot: int, buffer: Bytes) -> int | None:
        """Copies a slot out and returns its version, -1 if it has none; None if it was written in
        the meantime."""
        words, at = self._words, learner * self._line_words + slot
        found = words[at]
        self._fence.full_barrier()
        np.copyto(buffer, self._slots[learner * self._num_slots + slot])
        self._fence.full_barrier()
        return found - 1 if words[at] == found else None


def _lines(num_bytes: int) -> int:
    """`num_bytes` rounded up to whole cache lines."""
    return -(-num_bytes // LINE_BYTES) * LINE_BYTES
