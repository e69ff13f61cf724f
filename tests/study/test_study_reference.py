"""Old studies: their reports say what they said, whatever was added since."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.helpers.paths import REPOSITORY
from tianji_cli.bench.study.compare import compare_study
from tianji_cli.bench.study.records import StudyFiles
from tianji_cli.render.bench.study_page import StudyPage, render_study_markdown

KEPT = sorted(path.parent for path in (REPOSITORY / "results/reference").glob("*/study.json"))
SIDE_BY_SIDE = ("staleness-harm",)
"""Their runs shared the cores, so times are not compared."""


def is_part(old: Any, new: Any) -> bool:  # noqa: ANN401 - any JSON
    """Whether a document says all that an older one says; keys may be added."""
    if isinstance(old, dict):
        return isinstance(new, dict) and all(
            key in new and is_part(value, new[key]) for key, value in old.items()
        )
    if isinstance(old, list):
        return isinstance(new, list) and len(old) == len(new) and all(map(is_part, old, new))
    return bool(old == new)


def test_a_part_is_told_from_another_thing():
    assert is_part({"a": [1, {"b": 2}]}, {"a": [1, {"b": 2, "c": 3}], "d": 4})
    assert not is_part({"a": 1}, {"a": 2})
    assert not is_part({"a": [1]}, {"a": [1, 2]})
    assert not is_part({"a": None}, {})


def test_there_are_old_studies():
    assert len(KEPT) >= 5


@pytest.mark.parametrize("root", KEPT, ids=lambda root: root.name)
def test_a_kept_study_still_says_all_that_it_said(root: Path):
    files = StudyFiles(root)
    manifest = files.read_manifest()
    runs = files.read_results(manifest)
    found = compare_study(manifest, runs)
    assert is_part(json.loads((root / "comparison.json").read_bytes()), msgspec.to_builtins(found))
    for task in found.tasks:
        assert (task.times_not_compared is None) == (root.name not in SIDE_BY_SIDE)
        assert task.search is None
        for item in task.variants:
            has_no_time = item.mean_return is None or root.name in SIDE_BY_SIDE
            assert (item.mean_return_over_time is None) == has_no_time
    _same_page(
        root / "README.md",
        render_study_markdown(StudyPage(manifest, found, list(runs.values()), []), root),
    )


def _same_page(kept: Path, text: str) -> None:
    """The cells of each row of the old page are those of a new one, apart from added columns."""
    new = _rows(text)
    old = [row for row in _rows(kept.read_text()) if row[0] not in ("task", "run", "---")]
    assert len(old) > 10
    assert [row for row in old if not any(_is_within(row, other) for other in new)] == []


def _rows(text: str) -> list[list[str]]:
    lines = (line for line in text.splitlines() if line.startswith("|"))
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def _is_within(row: list[str], other: list[str]) -> bool:
    """Whether all cells of a row are in another one, in their order."""
    left = iter(other)
    return row[:2] == other[:2] and all(any(_says(cell, new) for new in left) for cell in row)


def _says(cell: str, new: str) -> bool:
    """Whether it is the same; a return can have more digits by now."""
    if cell == new or not re.fullmatch(r"-?\d+\.\d+", cell) or not re.fullmatch(r"-?[\d.]+", new):
        return cell == new
    return f"{float(new):.{len(cell.partition('.')[2])}f}" == cell
