"""Follows trace tables that grow: each read takes in only what was appended since the last one."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Generic

from engine.errors import ConfigError
from engine.trace.reader import MAX_LINE_BYTES, NotARowError, R, RowDecoder, rows_of
from engine.trace.records import table_of
from tianji_cli.storage.safe_files import open_inside

READ_BYTES = 1 << 20
"""At most this much is read at once: some ten thousand rows, a few hundredths of a second."""
PACKED_ROWS = 10_000
_MARK_BYTES = 64


@dataclass
class Appended(Generic[R]):
    """What one read found.

    Attributes:
        rows: The new rows, in the order in which they were written.
        is_restarted: The table was truncated or replaced: these rows are its first ones, and what
            was read before is no longer in it.
        is_behind: More can be read right now.
        num_damaged: Complete lines that are not rows of this table; they are skipped.
        problem: Why the table cannot be read, or about the first damaged line; empty if all is
            well.
    """

    rows: list[R] = field(default_factory=list)
    is_restarted: bool = False
    is_behind: bool = False
    num_damaged: int = 0
    problem: str = ""


class TableFollower(Generic[R]):
    """Reads one trace table of a run while it grows.

    A missing table has no rows. `<table>.jsonl.gz` in its place is read once. A last line without
    its newline is still being written, so it is left for the next read. No link below the run's
    directory is followed, and nothing blocks.

    Args:
        run_root: `results/<run-id>`, or a copy of it.
        record_type: Which table, by the type of its rows.
    """

    def __init__(self, run_root: Path, record_type: type[R]) -> None:
        self._root = run_root
        self._type = record_type
        self._name = f"trace/{table_of(record_type)}.jsonl"
        self._decoder = RowDecoder(record_type)
        self._file: tuple[int, ...] = ()
        """Which file the rows so far came from; empty before the first."""
        self._version: tuple[int, ...] = ()
        """Its size and time of modification when all of it had been seen."""
        self._packed: Iterator[R] = iter(())
        self._begin()

    def _begin(self) -> None:
        self._offset = 0
        """Of the first line that was not taken in."""
        self._mark = b""
        """The bytes before it, by which it is recognised in a file that has changed."""
        self._is_inside_damage = False

    def read(self, max_bytes: int = READ_BYTES) -> Appended[R]:
        """The rows that were appended since the last call, or some of them.

        Args:
            max_bytes: About how much of the file is read.
        """
        found: Appended[R] = Appended()
        try:
            if not self._read_plain(max_bytes, found):
                self._read_packed(found)
        except FileNotFoundError:
            return found
        except (ConfigError, OSError) as error:
            found.problem = str(error)
        return found

    def _read_plain(self, max_bytes: int, found: Appended[R]) -> bool:
        """Whether there is an uncompressed table."""
        try:
            file = open_inside(self._root, self._name)
        except FileNotFoundError:
            return False
        with file:
            self._read(file, max_bytes, found)
        return True

    def _read(self, file: BinaryIO, max_bytes: int, found: Appended[R]) -> None:
        status = os.fstat(file.fileno())
        version = (status.st_size, status.st_mtime_ns)
        if self._is_another(status) or not self._goes_on(file):
            found.is_restarted = bool(self._file)
            self._file = (status.st_dev, status.st_ino)
            self._begin()
        elif version == self._version:
            return
        file.seek(self._offset)
        data = file.read(max_bytes)
        if b"\n" not in data and len(data) == max_bytes:
            data += file.read(MAX_LINE_BYTES)
        end_of_file = self._offset + len(data)
        self._take(data, found)
        found.is_behind = end_of_file < status.st_size
        self._version = () if found.is_behind else version

    def _is_another(self, status: os.stat_result) -> bool:
        return (status.st_dev, status.st_ino) != self._file or status.st_size < self._offset

    def _goes_on(self, file: BinaryIO) -> bool:
        """Whether what was read is still there: a table can be cut and grow again."""
        size = len(self._mark)
        return os.pread(file.fileno(), size, self._offset - size) == self._mark

    def _take(self, data: bytes, found: Appended[R]) -> None:
        """Decodes complete lines and steps over them."""
        end = data.rfind(b"\n") + 1
        if not end and len(data) > MAX_LINE_BYTES:
            end = len(data)
            self._add_damaged(found, "a line is longer than any row")
            self._is_inside_damage = True
        elif end:
            for line in data[:end].split(b"\n")[:-1]:
                self._add(line, found)
        self._offset += end
        self._mark = (self._mark + data[:end])[-_MARK_BYTES:]

    def _add(self, line: bytes, found: Appended[R]) -> None:
        if self._is_inside_damage:
            self._is_inside_damage = False
            return
        try:
            found.rows.append(self._decoder.decode(line))
        except NotARowError as error:
            self._add_damaged(found, str(error))

    def _add_damaged(self, found: Appended[R], why: str) -> None:
        if not self._is_inside_damage:
            found.num_damaged += 1
            found.problem = found.problem or f"{self._root / self._name}: not a row: {why}"

    def _read_packed(self, found: Appended[R]) -> None:
        """Takes some rows of a compressed table, which does not grow."""
        name = f"{self._name}.gz"
        file = open_inside(self._root, name)
        status = os.fstat(file.fileno())
        identity = (status.st_dev, status.st_ino, status.st_mtime_ns)
        if identity == self._file:
            file.close()
        else:
            found.is_restarted = bool(self._file)
            self._file = identity
            self._begin()
            self._packed = _closing(file, rows_of(file, self._root / name, self._type))
        for row in itertools.islice(self._packed, PACKED_ROWS):
            found.rows.append(row)  # so that those before a damaged line are kept
        found.is_behind = len(found.rows) == PACKED_ROWS


def _closing(file: BinaryIO, rows: Iterator[R]) -> Iterator[R]:
    with file:
        yield from rows


def last_rows(run_root: Path, record_type: type[R], max_bytes: int = 1 << 16) -> list[R]:
    """The rows at the end of a table, for a look at a run that is not followed.

    Args:
        run_root: `results/<run-id>`.
        record_type: Which table.
        max_bytes: How much of its end is read.

    Returns:
        Empty if there is no such table, it is compressed, or it cannot be read.
    """
    decoder, rows = RowDecoder(record_type), list[R]()
    try:
        with open_inside(run_root, f"trace/{table_of(record_type)}.jsonl") as file:
            begin = max(0, file.seek(0, os.SEEK_END) - max_bytes)
            file.seek(begin)
            lines = file.read(max_bytes).split(b"\n")[:-1]
    except (OSError, ConfigError):
        return []
    for line in lines[1:] if begin else lines:
        with contextlib.suppress(NotARowError):
            rows.append(decoder.decode(line))
    return rows
