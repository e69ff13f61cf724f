"""What `tianji runs` lists beside runs: studies and benchmarks, from their documents alone."""

from __future__ import annotations

from itertools import chain, islice
from pathlib import Path

import msgspec

from engine.errors import ConfigError
from engine.wording import is_or_are, plural
from tianji_cli.analysis.runs import RunRow, row_of
from tianji_cli.bench.kinds import KINDS, KindInfo
from tianji_cli.bench.study.records import whole_lines
from tianji_cli.storage.json_files import decode, read_document
from tianji_cli.storage.run_dir import RunPaths, directories_with

MAX_CELLS = 100_000
"""So many finished ones are counted at most."""


class _Work(msgspec.Struct):
    """What the documents of all kinds have."""

    started_at: str
    cells: list[msgspec.Raw]


def _num_finished(kind: KindInfo, root: Path) -> int:
    """How many cells of a benchmark are finished, from the files alone."""
    if kind.journal:
        return len(whole_lines(root / kind.journal))
    cells = root / "cells"
    found = chain(cells.glob("*/cell.json"), cells.glob("*/*/cell.json"))  # `cell` or `task/system`
    return sum(1 for _ in islice(found, MAX_CELLS))


def list_results(results: Path) -> list[RunRow]:
    """All runs, studies and benchmarks in a results directory, oldest first.

    One whose files are damaged is listed as `unreadable` and hides no other.
    """
    found = {
        place: (time_ns, row_of(RunPaths(place)))
        for time_ns, place in directories_with(results, "manifest.json")
    }
    for kind in KINDS.values():
        for time_ns, place in directories_with(results, f"{kind.stem}.json"):
            if place not in found:
                found[place] = (time_ns, row_of_work(kind, place))
    ordered = sorted(found.items(), key=lambda item: (item[1][0], item[0].name))
    return [row for _, (_, row) in ordered]


def row_of_work(kind: KindInfo, root: Path) -> RunRow:
    row = RunRow(run_id=root.name, path=str(root), kind=kind.stem, status="unreadable")
    path = root / f"{kind.stem}.json"
    try:
        work = decode(read_document(path), _Work, 1 << 30, kind.title, str(path))
        num_finished = _num_finished(kind, root)
    except (ConfigError, OSError) as error:
        return msgspec.structs.replace(row, problem=str(error))
    num_cells = len(work.cells)
    is_finished = num_finished >= num_cells
    return msgspec.structs.replace(
        row,
        status="ok" if is_finished else "unfinished",
        problem=None
        if is_finished
        else f"{num_finished} of {plural(num_cells, 'cell')} {is_or_are(num_finished)} finished",
        started_at=work.started_at or None,
        num_cells=num_cells,
        num_cells_finished=min(num_finished, num_cells),
    )
