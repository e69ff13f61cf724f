"""Appends records to their tables; a crash loses at most what was not flushed yet."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, Self

import msgspec

from engine.trace.records import RECORD_TYPES, Record, table_of


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
        self._files: dict[type[Record], BinaryIO] = {
            record_type: (directory / f"{table_of(record_type)}.jsonl").open("ab")
            for record_type in RECORD_TYPES
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, records: Iterable[Record]) -> None:
        for record in records:
            self._files[type(record)].write(self._encoder.encode(record) + b"\n")

    def flush(self) -> None:
        for file in self._files.values():
            file.flush()

    def close(self) -> None:
        for file in self._files.values():
            file.close()
