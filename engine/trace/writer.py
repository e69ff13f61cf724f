"""Appends records to their tables; a crash loses at most what was not flushed yet."""

from __future__ import annotations

from collections.abc import Iterable
from io import FileIO
from pathlib import Path
from typing import Self

import msgspec

from engine.trace.records import RECORD_TYPES, Record, table_of

MAX_BUFFERED_BYTES = 1 << 20


class TraceWriter:
    """Writes `<directory>/<table>.jsonl`. Use as a context manager.

    All tables exist from the start, so that an empty one differs from a missing one.

    Args:
        directory: Must exist.

    Raises:
        OSError: The disk is full or not writable.
    """

    def __init__(self, directory: Path) -> None:
        self._encoder = msgspec.json.Encoder()
        self._num_buffered = 0
        self._buffers: dict[type[Record], bytearray] = {kind: bytearray() for kind in RECORD_TYPES}
        self._files: dict[type[Record], FileIO] = {
            record_type: (directory / f"{table_of(record_type)}.jsonl").open("ab", buffering=0)
            for record_type in RECORD_TYPES
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, records: Iterable[Record]) -> None:
        """Keeps records for the next `flush`, or writes them if there are too many to keep."""
        for record in records:
            line = self._encoder.encode(record)
            self._buffers[type(record)] += line + b"\n"
            self._num_buffered += len(line)
        if self._num_buffered > MAX_BUFFERED_BYTES:
            self.flush()

    def flush(self) -> None:
        """Writes all tables up to the same moment, so that a crash leaves them in agreement."""
        self._num_buffered = 0
        for kind, buffer in self._buffers.items():
            rest = bytes(buffer)
            while rest:  # an unbuffered write may take less than all of it
                rest = rest[self._files[kind].write(rest) :]
            buffer.clear()

    def close(self) -> None:
        self.flush()
        for file in self._files.values():
            file.close()
