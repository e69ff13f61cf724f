"""What fuzz targets are made of: bytes as a source of decisions, edits, and bounds."""

from __future__ import annotations

import struct
import time
import tracemalloc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

FRAME_BYTES = (2**16, 64)
"""What decoding may allocate: so much, and so much for each byte of the frames."""
FILE_BYTES = (2**23, 4096)
"""What reading a file may allocate; PyYAML makes large nodes of small words."""
MOST_CPU_S = 5.0


class Choices:
    """Bytes as a source of decisions; zeros when they are used up."""

    def __init__(self, data: bytes) -> None:
        self._rest = memoryview(data)

    def take(self, count: int) -> bytes:
        taken, self._rest = self._rest[:count], self._rest[count:]
        return bytes(taken)

    @property
    def has_more(self) -> bool:
        """Whether there are any bytes left."""
        return bool(self._rest)

    def below(self, limit: int) -> int:
        """A number below `limit`, which is at most 65536."""
        return int.from_bytes(self.take(1 if limit <= 256 else 2), "little") % limit


NUMBERS = tuple(
    struct.pack(f"<{size}", value)
    for size, values in (
        ("B", (0, 1, 127, 128, 255)),
        ("I", (0, 1, 2**31 - 1, 2**31, 2**32 - 1)),
        ("Q", (0, 1, 2**53, 2**63 - 1, 2**63, 2**64 - 1)),
    )
    for value in values
)


def edit(data: bytearray, choices: Choices, words: Sequence[bytes]) -> None:
    """One change somewhere: of a byte, of a number, of a word, or of a stretch."""
    at = choices.below(65536) % (len(data) + 1)
    span = 1 + choices.below(64)
    match choices.below(7):
        case 0:
            data[at : at + 1] = choices.take(1)
        case 1:
            number = NUMBERS[choices.below(len(NUMBERS))]
            data[at : at + len(number)] = number
        case 2:
            data[at:at] = words[choices.below(len(words))]
        case 3:
            del data[at : at + span]
        case 4:
            data[at:at] = data[at : at + span]
        case 5:
            data[at:at] = choices.take(span)
        case 6:
            data[at:at] = data[at : at + span] * (1 + choices.below(200))


def mutated(data: bytes, choices: Choices, words: Sequence[bytes]) -> bytearray:
    changed = bytearray(data)
    for _ in range(choices.below(6)):
        edit(changed, choices, words)
    return changed


@contextmanager
def bounded(limit: tuple[int, int], num_bytes: int) -> Iterator[None]:
    """Neither the memory nor the processor time of what is done here may go beyond its bound."""
    was_tracing = tracemalloc.is_tracing()
    if not was_tracing:
        tracemalloc.start()
    tracemalloc.reset_peak()
    before, began_s = tracemalloc.get_traced_memory()[0], time.thread_time()
    try:
        yield
    finally:
        took_s, peak = time.thread_time() - began_s, tracemalloc.get_traced_memory()[1] - before
        if not was_tracing:
            tracemalloc.stop()
    most = limit[0] + limit[1] * num_bytes
    assert peak <= most, f"{peak} bytes were allocated for {num_bytes}, more than {most}"
    assert took_s <= MOST_CPU_S, f"{took_s:.1f} s for {num_bytes} bytes"
