"""Rows of lists of what there is: their columns, and those that a user asks for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, TypeVar

import msgspec

KINDS = {
    "environments": "Gymnasium ids that can be used here; a filter that leaves few shows spaces",
    "algorithms": "algorithms, and what each can do",
    "policies": "distribution policies",
    "experiments": "experiments that come with TianJi, and those in ./experiments",
    "suites": "benchmarks and studies, likewise",
    "inventories": "inventories that come with TianJi, and those in ./inventories",
    "keys": "every key of every file, with type, default and meaning",
}
"""What `tianji list` can list."""


class ListedRow(msgspec.Struct, frozen=True, kw_only=True):
    """One row; its fields are those of the JSON document."""

    headings: ClassVar[tuple[str, ...]] = ()
    """Of the columns of a table."""

    @property
    def cells(self) -> tuple[str, ...]:
        """What stands under the headings."""
        raise NotImplementedError


RowT = TypeVar("RowT", bound=msgspec.Struct)


def matching(rows: Iterable[RowT], words: Sequence[str]) -> list[RowT]:
    """The rows in whose texts all words occur, in any order and case.

    >>> class Pair(msgspec.Struct):
    ...     name: str
    ...     samples: str
    ...
    >>> matching([Pair("ppo", "queue"), Pair("dqn", "replay")], ["PP", "queue"])
    [Pair(name='ppo', samples='queue')]
    """
    wanted = [word.casefold() for word in words]
    return [row for row in rows if all(word in _text_of(row) for word in wanted)]


def _text_of(row: msgspec.Struct) -> str:
    return "\n".join(_texts(msgspec.to_builtins(row))).casefold()


def _texts(value: object) -> list[str]:
    """Texts in any nesting; numbers and truth values are not searched."""
    if isinstance(value, dict):
        return [text for part in value.values() for text in _texts(part)]
    if isinstance(value, list):
        return [text for part in value for text in _texts(part)]
    return [value] if isinstance(value, str) else []
