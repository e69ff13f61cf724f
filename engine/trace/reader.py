"""Reads trace tables and summaries back, typed. No pandas: a supervisor may need this too."""

from __future__ import annotations

import gzip
import math
import os
import zlib
from collections.abc import Iterator
from io import BufferedIOBase
from pathlib import Path
from typing import BinaryIO, Generic, TypeVar

import msgspec

from engine.errors import ConfigError
from engine.files import open_regular, read_regular, reason_of
from engine.trace.columns import Table
from engine.trace.records import SCHEMA_VERSION, Record, table_of
from engine.trace.summary import Summary

R = TypeVar("R", bound=Record)


MAX_SUMMARY_BYTES = 2**24
MAX_LINE_BYTES = 2**24
MAX_UNPACKED_BYTES = 2**29
"""A table that was written in full detail has 64 MiB at most, and grows by 1.4 MiB an hour."""
SMALL_BYTES = 2**24
MAX_RATIO = 60
"""Four times the highest compression ratio of a run's tables."""


_NO_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class _Versioned(msgspec.Struct):
    schema_version: int = 0


class NotARowError(ValueError):
    """A line that is not a row of its table."""


class RowDecoder(Generic[R]):
    """Decodes the lines of one table.

    Args:
        record_type: Type of its rows.
    """

    def __init__(self, record_type: type[R]) -> None:
        self._type = record_type
        self._decoder = msgspec.json.Decoder(record_type)

    def decode(self, line: bytes) -> R:
        """The row of a line; null, as which a non-finite float is stored, comes back as NaN.

        Raises:
            NotARowError: The line is incomplete or damaged.
        """
        try:
            return self._decoder.decode(line)
        except _NO_JSON as error:
            row = _with_nan(line, self._type)
            if row is None:
                raise NotARowError(str(error)) from error
            return row


def read_table(trace_dir: Path, record_type: type[R]) -> list[R]:
    """All rows of one trace table, in the order in which they were written.

    `<table>.jsonl.gz` in its place is read as well.
    A last line without its newline was cut by a crash and is skipped. Non-finite floats, which
    JSON cannot hold and the writer therefore stores as null, come back as NaN.

    Args:
        trace_dir: A run's `trace/`.
        record_type: Which table, by the type of its rows.

    Returns:
        Empty if the table was never written.

    Raises:
        ConfigError: A complete line is not a row of this table; `where` is `file:line`. Or a line,
            or what comes out of a packed table, is larger than any that TianJi writes.
    """
    return list(_rows(trace_dir, record_type))


def read_columns(trace_dir: Path, record_type: type[R], *, until_s: float = math.inf) -> Table[R]:
    """As `read_table`, for tables that may be too long to keep each row as an object.

    Rows after `until_s` are left out.
    """
    table = Table(record_type)
    for row in _rows(trace_dir, record_type):
        if row.t_s <= until_s:
            table.append(row)
    return table


def _rows(trace_dir: Path, record_type: type[R]) -> Iterator[R]:
    path = _find(trace_dir / f"{table_of(record_type)}.jsonl")
    try:
        with open_regular(path) as raw:
            yield from rows_of(raw, path, record_type)
    except FileNotFoundError:
        return


def rows_of(raw: BinaryIO, path: Path, record_type: type[R]) -> Iterator[R]:
    """The rows of an open table, read as they are taken.

    Args:
        raw: The file.
        path: Its name, which also says whether it is compressed.
        record_type: Type of its rows.

    Raises:
        ConfigError: As of `read_table`.
    """
    decoder = RowDecoder(record_type)
    try:
        is_packed = path.suffix == ".gz"
        most_bytes = _most_bytes(os.fstat(raw.fileno()).st_size) if is_packed else None
        file = gzip.GzipFile(fileobj=raw) if is_packed else raw
        for number, line in enumerate(_lines(file, path, most_bytes), start=1):
            try:
                yield decoder.decode(line)
            except NotARowError as error:
                if line.endswith(b"\n"):
                    raise _bad_line(error, f"{path}:{number}") from error
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(f"cannot be read: {reason_of(error)}", where=str(path)) from error


def _most_bytes(packed_bytes: int) -> int:
    """Size limit of a decompressed table."""
    return min(MAX_UNPACKED_BYTES, SMALL_BYTES + MAX_RATIO * packed_bytes)


def _lines(file: BufferedIOBase | BinaryIO, path: Path, most_bytes: int | None) -> Iterator[bytes]:
    """The lines of a table; a small compressed file can expand to any number of bytes.

    Raises:
        ConfigError: A line is longer than any row, or more comes out of a packed table than may.
    """
    number, left_bytes = 0, most_bytes
    while line := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(line) > MAX_LINE_BYTES:
            raise ConfigError(
                f"a line of more than {MAX_LINE_BYTES >> 20} MiB is not a row",
                where=f"{path}:{number}",
            )
        if left_bytes is not None:
            left_bytes -= len(line)
            if left_bytes < 0:
                assert most_bytes is not None
                raise ConfigError(
                    f"more than {most_bytes >> 20} MiB come out of it", where=str(path)
                )
        yield line


def _find(path: Path) -> Path:
    """The table itself, or a compressed one in its place."""
    packed = path.with_name(f"{path.name}.gz")
    return packed if packed.is_file() and not path.is_file() else path


def _with_nan(line: bytes, record_type: type[R]) -> R | None:
    """The row with every null read as NaN; None if that does not make it a row either."""
    try:
        row = _nan_for_null(msgspec.json.decode(line))
        return msgspec.convert(row, record_type, str_keys=True)
    except _NO_JSON:
        return None


def _nan_for_null(value: object) -> object:
    if isinstance(value, dict):
        return {key: _nan_for_null(item) for key, item in value.items()}
    return math.nan if value is None else value


def _bad_line(error: Exception, where: str) -> ConfigError:
    return ConfigError(
        f"not a row of this trace table: {error}",
        where=where,
        fix="remove that line to read the rest, or read it with the version that wrote it",
    )


def read_summary(path: Path) -> Summary | None:
    """The summary of a run, or None if the run has not written one.

    Raises:
        ConfigError: The file is not a summary, or a newer version of TianJi wrote it.
    """
    if not os.path.lexists(path):
        return None
    data = read_regular(path, MAX_SUMMARY_BYTES)
    try:
        version = msgspec.json.decode(data, type=_Versioned).schema_version
        if version > SCHEMA_VERSION:
            raise ConfigError(
                f"its schema_version {version} is newer than {SCHEMA_VERSION}, the newest known",
                where=str(path),
                fix="read it with the version of TianJi that wrote it",
            )
        return msgspec.json.decode(data, type=Summary)
    except _NO_JSON as error:
        raise ConfigError(f"not a summary: {error}", where=str(path)) from error
