"""`tianji list`: what there is to choose from, as a table or as one JSON document."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from rich.console import RenderableType

from engine.config.config_file import suggest
from engine.errors import ConfigError
from tianji_cli.commands.start import list_tables as tables
from tianji_cli.output import Output
from tianji_cli.reference.rows import KINDS, ListedRow, matching

MAX_LOOKED_AT = 20
"""Environments whose spaces are shown: making one can take a second."""
MAX_OF_FAMILY = 24
"""Ids of one family that are shown if none is asked for."""


class ListDocument(msgspec.Struct, frozen=True, kw_only=True):
    """What `list KIND --json` prints.

    Attributes:
        kind: What is listed.
        rows: One for each.
        missing: Of environments, families whose package is not installed.
    """

    schema_version: int = 1
    kind: str
    rows: Sequence[ListedRow]
    missing: Sequence[msgspec.Struct] = ()


def list_command(kind: str | None, words: Sequence[str], output: Output) -> None:
    """Prints what there is of a kind.

    Args:
        kind: One of `KINDS`; None lists these.
        words: Must all occur in a row.
        output: The command's output.

    Raises:
        ConfigError: There is no such kind.
    """
    if kind is None:
        _list_kinds(output)
    elif kind == "environments":
        _list_environments(words, output)
    elif kind == "keys":
        _list_keys(words, output)
    elif kind in KINDS:
        rows = matching(_rows(kind), words)
        table = tables.rows_table(rows) if rows else None
        _show(ListDocument(kind=kind, rows=rows), table, words, output)
    else:
        raise ConfigError(f"unknown kind {kind!r}", where="list", fix=suggest(kind, KINDS))


def _show(
    document: ListDocument, table: RenderableType | None, words: Sequence[str], output: Output
) -> None:
    if output.is_json:
        output.document(document)
    elif table is not None:
        output.data.print(table)
    else:
        output.say(f"no {document.kind} match {' '.join(words)}" if words else "none")


def _list_kinds(output: Output) -> None:
    if output.is_json:
        output.document({"schema_version": 1, "kinds": KINDS})
    else:
        output.data.print(tables.kinds_table(KINDS))


def _rows(kind: str) -> Sequence[ListedRow]:
    """Imports what this kind needs, and nothing more."""
    match kind:
        case "algorithms":
            from tianji_cli.reference.algorithms import algorithms

            return algorithms()
        case "policies":
            from tianji_cli.reference.policies import policies

            return policies()
        case "experiments":
            from tianji_cli.reference.files import experiments

            return experiments()
        case "suites":
            from tianji_cli.reference.files import suites

            return suites()
    from tianji_cli.reference.files import inventories

    return inventories()


def _list_keys(words: Sequence[str], output: Output) -> None:
    from tianji_cli.reference.contents import chapters, key_rows

    rows = matching(key_rows(chapters()), words)
    table = tables.keys_list(rows) if rows else None
    _show(ListDocument(kind="keys", rows=rows), table, words, output)


def _list_environments(words: Sequence[str], output: Output) -> None:
    from engine.host.user_code import restored_process
    from tianji_cli.reference.environments import environments, look_at

    output.part_from_user_code()
    with restored_process():
        rows, missing = environments()
        rows = matching(rows, words)
        is_detailed = bool(words) and 0 < len(rows) <= MAX_LOOKED_AT
        if is_detailed:
            rows = [look_at(row) for row in rows]
    missing = matching(missing, words)
    document = ListDocument(kind="environments", rows=rows, missing=missing)
    most = len(rows) if words else MAX_OF_FAMILY
    table = tables.rows_table(rows) if is_detailed else tables.families_table(rows, most)
    _show(document, table if rows else None, words, output)
    advice = {row.problem: row.advice for row in reversed(rows) if row.problem}
    for words in advice.values():
        output.say(f"note: {words}")
    for family in missing:
        output.say(f"not installed: {family.family}, such as {family.example}: {family.install}")
