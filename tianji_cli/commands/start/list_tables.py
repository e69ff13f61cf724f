"""Tables of `tianji list`. Text from files is never read as rich markup."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from tianji_cli.reference.rows import ListedRow

if TYPE_CHECKING:
    from tianji_cli.reference.contents import KeyRow
    from tianji_cli.reference.environments import EnvironmentRow


def kinds_table(kinds: Mapping[str, str]) -> Table:
    """What can be listed."""
    table = _table("tianji list", "shows")
    for kind, about in kinds.items():
        table.add_row(Text(kind), Text(about))
    return table


def rows_table(rows: Sequence[ListedRow]) -> Table:
    """A column for each heading; the first is never broken.

    Args:
        rows: Of one type; at least one.
    """
    table = _table(*rows[0].headings)
    for row in rows:
        table.add_row(*map(Text, row.cells))
    return table


def families_table(rows: Sequence[EnvironmentRow], most: int) -> Table:
    """All ids of a family in one cell: they are many, and nothing else is known of them.

    Args:
        rows: Sorted by family.
        most: Ids of one family that are shown; of a larger one an example is.
    """
    table = _table("family", "environments")
    for family, members in groupby(rows, key=lambda row: row.family):
        ids = [row.id for row in members]
        words = "  ".join(ids)
        if len(ids) > most:
            words = f"{len(ids)}, such as {ids[0]}: tianji list environments {family}"
        table.add_row(Text(family), Text(words))
    return table


def keys_list(rows: Sequence[KeyRow]) -> RenderableType:
    """A paragraph for each key: too much is said of it for the columns of a terminal."""
    return Group(*(part for row in rows for part in _paragraph(row)))


def _paragraph(row: KeyRow) -> tuple[RenderableType, ...]:
    default = row.default if row.default == "required" else f"default {row.default}"
    return (
        Text.assemble((row.key, "bold"), (f"  {row.file}", "dim")),
        Padding(Text(f"{row.type}; {default}"), (0, 0, 0, 2)),
        Padding(Text(row.meaning), (0, 0, 0, 2)),
    )


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, heading in enumerate(headings):
        table.add_column(heading, overflow="fold", no_wrap=number == 0)
    return table
