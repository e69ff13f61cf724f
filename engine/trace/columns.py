"""A long trace table in memory: an array per field; rows are made only while they are read.

A row as an object is several times larger than its numbers, and runs of short episodes have tens of
millions of rows.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from typing import Any, Generic, TypeAlias, TypeVar, get_args, get_origin, overload

import msgspec
from msgspec import UNSET

from engine.trace.optional_columns import OptionalFloats, OptionalMappings, OptionalNumbers

R = TypeVar("R", bound=msgspec.Struct)
Column: TypeAlias = "array[float] | array[int] | list[object]"
OptionalColumn: TypeAlias = OptionalNumbers | OptionalFloats | OptionalMappings

_CODES = {"float": "d", "int": "q", "bool": "b"}


class Table(Sequence[R], Generic[R]):
    """The rows of one table, in the order in which they were written.

    Args:
        record_type: Type of its rows. Numbers become arrays; equal texts are stored once; a field
            that rows can be without takes no memory before a row has it.
    """

    def __init__(self, record_type: type[R]) -> None:
        self._type = record_type
        self._columns: dict[str, Column] = {
            field.name: _column_of(type_name(field))
            for field in msgspec.structs.fields(record_type)
            if optional_type(field) is None
        }
        self._optional: dict[str, OptionalColumn] = {
            field.name: _optional_column(field)
            for field in msgspec.structs.fields(record_type)
            if optional_type(field) is not None
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
        for name, optional in self._optional.items():
            value = getattr(row, name)
            if value is not UNSET:
                optional.put(self._num_rows, value)
        self._num_rows += 1

    def column(self, name: str) -> Column:
        """All values of a field, [rows]; `bool` as 0 and 1."""
        return self._columns[name]

    def optional(self, name: str) -> OptionalColumn:
        """All values of a field that rows can be without."""
        return self._optional[name]

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
        for name, optional in self._optional.items():
            values[name] = optional[index % self._num_rows]
        return self._type(**values)


def column_of(rows: Sequence[msgspec.Struct], name: str) -> Sequence[Any]:
    """A field of all rows, of a `Table` or of any others."""
    if isinstance(rows, Table):
        return rows.column(name)
    return [getattr(row, name) for row in rows]


def optional_of(rows: Sequence[msgspec.Struct], field: msgspec.structs.FieldInfo) -> OptionalColumn:
    """A field that rows can be without, of a `Table` or of any others."""
    if isinstance(rows, Table):
        return rows.optional(field.name)
    found = _optional_column(field)
    for number, row in enumerate(rows):
        value = getattr(row, field.name)
        if value is not UNSET:
            found.put(number, value)
    return found


def mappings_of(
    rows: Sequence[msgspec.Struct], record_type: type[msgspec.Struct], name: str
) -> OptionalMappings:
    """A field of numbers by name that rows can be without."""
    fields = msgspec.structs.fields(record_type)
    column = optional_of(rows, next(field for field in fields if field.name == name))
    assert isinstance(column, OptionalMappings)
    return column


def optional_type(field: msgspec.structs.FieldInfo) -> type | None:
    """`int`, `float` or `dict` of a field that rows can be without; None of any other."""
    plain = getattr(field.type, "__origin__", field.type)
    kinds = get_args(plain)
    if msgspec.UnsetType not in kinds:
        return None
    if any(get_origin(kind) is dict for kind in kinds):
        return dict
    return float if float in kinds else int


def type_name(field: msgspec.structs.FieldInfo) -> str:
    """`int`, `float`, `bool` or `str`, with or without bounds; empty for other types."""
    plain = getattr(field.type, "__origin__", field.type)
    return plain.__name__ if plain in (int, float, bool, str) else ""


def _column_of(type_name: str) -> Column:
    code = _CODES.get(type_name)
    return [] if code is None else array(code)


def _optional_column(field: msgspec.structs.FieldInfo) -> OptionalColumn:
    kind = optional_type(field)
    if kind is dict:
        return OptionalMappings()
    return OptionalFloats() if kind is float else OptionalNumbers()
