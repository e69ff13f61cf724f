"""A long trace table in memory: an array per field; rows are made only while they are read.

A row as an object is several times larger than its numbers, and runs of short episodes have tens of
millions of rows.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from typing import Any, Generic, TypeAlias, TypeVar, overload

import msgspec

R = TypeVar("R", bound=msgspec.Struct)
Column: TypeAlias = "array[float] | array[int] | list[object]"

_CODES = {"float": "d", "int": "q", "bool": "b"}


class Table(Sequence[R], Generic[R]):
    """The rows of one table, in the order in which they were written.

    Args:
        record_type: Type of its rows. Numbers become arrays; equal texts are stored once.
    """

    def __init__(self, record_type: type[R]) -> None:
        self._type = record_type
        self._columns: dict[str, Column] = {
            field.name: _column_of(type_name(field))
            for field in msgspec.structs.fields(record_type)
        }
        self._booleans = {
            field.name
            for field in msgspec.structs.fields(record_type)
            if type_name(field) == "bool"
        }
        self._words: dict[object, object] = {}
        self._num_rows = 0

    def append(self, row: R) -> None:
        """Adds a row."""
        for name, column in self._columns.items():
            value = getattr(row, name)
            if isinstance(value, str):
                value = self._words.setdefault(value, value)
            column.append(value)
        self._num_rows += 1

    def column(self, name: str) -> Column:
        """All values of a field, [rows]; `bool` as 0 and 1."""
        return self._columns[name]

    def __len__(self) -> int:
        return self._num_rows

    @overload
    def __getitem__(self, index: int) -> R: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[R]: ...

    def __getitem__(self, index: int | slice) -> R | Sequence[R]:
        if isinstance(index, slice):
            return [self._row(number) for number in range(*index.indices(self._num_rows))]
        if not -self._num_rows <= index < self._num_rows:
            raise IndexError(index)
        return self._row(index)

    def __iter__(self) -> Iterator[R]:
        return map(self._row, range(self._num_rows))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # it grows

    def _row(self, index: int) -> R:
        values = {name: column[index] for name, column in self._columns.items()}
        for name in self._booleans:
            values[name] = bool(values[name])
        return self._type(**values)


def column_of(rows: Sequence[msgspec.Struct], name: str) -> Sequence[Any]:
    """A field of all rows, of a `Table` or of any others."""
    if isinstance(rows, Table):
        return rows.column(name)
    return [getattr(row, name) for row in rows]


def type_name(field: msgspec.structs.FieldInfo) -> str:
    """`int`, `float`, `bool` or `str`, with or without bounds; empty for other types."""
    plain = getattr(field.type, "__origin__", field.type)
    return plain.__name__ if plain in (int, float, bool, str) else ""


def _column_of(type_name: str) -> Column:
    code = _CODES.get(type_name)
    return [] if code is None else array(code)
