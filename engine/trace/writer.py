"""Appends records to their tables; a crash loses at most what was not flushed yet."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from io import FileIO
from pathlib import Path
from typing import Self

import msgspec

from engine.trace.records import RECORD_TYPES, Event, Record, table_of
from engine.trace.thinning import DETAIL_BYTES, Thinner

MAX_BUFFERED_BYTES = 1 << 20
LOW_DISK_BYTES = 12 * 2**20
"""What is left then is for checkpoints, logs and the summary."""


class TraceWriter:
    """Writes `<directory>/<table>.jsonl`. Use as a context manager.

    All tables exist from the start, so that an empty one differs from a missing one.

    Args:
        directory: Must exist.
        detail_bytes: Tables beyond this size are thinned out (`engine.trace.thinning`).

    Raises:
        OSError: The disk is full or not writable.
    """

    def __init__(self, directory: Path, detail_bytes: int = DETAIL_BYTES) -> None:
        self._directory = directory
        self.stopped: str | None = None
        """Why only events are written any more; None while everything is."""
        self._encoder = msgspec.json.Encoder()
        self._num_buffered = 0
        self._buffers: dict[type[Record], bytearray] = {kind: bytearray() for kind in RECORD_TYPES}
        self._files: dict[type[Record], FileIO] = {
            record_type: (directory / f"{table_of(record_type)}.jsonl").open("ab", buffering=0)
            for record_type in RECORD_TYPES
        }
        self._whole_bytes = {kind: file.tell() for kind, file in self._files.items()}
        """Of each file, the lines that are there in full."""
        self._sizes = {kind: file.tell() for kind, file in self._files.items()}
        self._thinners = {kind: Thinner(kind, detail_bytes) for kind in RECORD_TYPES}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, records: Iterable[Record]) -> None:
        """Keeps records for the next `flush`, or writes them if there are too many to keep."""
        for record in records:
            if self.stopped is not None and not isinstance(record, Event):
                continue
            kind = type(record)
            for row in self._thinners[kind].take(record, self._sizes[kind]):
                self._keep(row)
        if self._num_buffered > MAX_BUFFERED_BYTES:
            self.flush()

    def _keep(self, row: Record) -> None:
        line = self._encoder.encode(row) + b"\n"
        self._buffers[type(row)] += line
        self._sizes[type(row)] += len(line)
        self._num_buffered += len(line)

    def finish(self) -> None:
        """Writes everything, also what was still being added up."""
        for thinner in self._thinners.values():
            for row in thinner.rest():
                if self.stopped is None:
                    self._keep(row)
        self.flush()

    def flush(self) -> None:
        """Writes all tables up to the same moment, so that a crash leaves them in agreement.

        A disk that takes no more stops the tables, not the run: see `stopped`.
        """
        self._num_buffered = 0
        for kind, buffer in self._buffers.items():
            lines = bytes(buffer)
            buffer.clear()
            try:
                self._append(kind, lines)
            except OSError as error:
                self.stopped = self.stopped or f"traces cannot be written: {error.strerror}"

    def _append(self, kind: type[Record], lines: bytes) -> None:
        """Appends lines, as many as fit.

        Raises:
            OSError: Not all did. What was written of the next one is cut off again, if need be
                before the next write: no later line may be glued to it.
        """
        if not lines:
            return
        file, rest = self._files[kind], lines
        self._cut_fragment(kind)
        try:
            while rest:  # an unbuffered write may take less than all of it
                rest = rest[file.write(rest) :]
        finally:
            num_written = len(lines) - len(rest)
            self._whole_bytes[kind] += lines.rfind(b"\n", 0, num_written) + 1
            if rest:
                with contextlib.suppress(OSError):  # the next write tries again, and tells
                    self._cut_fragment(kind)

    def _cut_fragment(self, kind: type[Record]) -> None:
        file, whole_bytes = self._files[kind], self._whole_bytes[kind]
        if file.tell() > whole_bytes:
            os.ftruncate(file.fileno(), whole_bytes)
            file.seek(whole_bytes)

    def stop_if_disk_is_low(self, least_bytes: int = LOW_DISK_BYTES) -> bool:
        """Stops all tables but `events` for good if so little is free that others need it more.

        Returns:
            True once, when it has stopped them.
        """
        if self.stopped is not None:
            return False
        disk = os.statvfs(self._directory)
        free_bytes = disk.f_bavail * disk.f_frsize
        if free_bytes >= least_bytes:
            return False
        self.flush()
        self.stopped = f"only {free_bytes / 2**20:.1f} MiB are free on the disk of the results"
        return True

    def close(self) -> None:
        self.finish()
        for file in self._files.values():
            file.close()
