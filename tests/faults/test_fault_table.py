"""The table of faults says what the tests have seen, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from tests.faults.catalogue import SCENARIOS
from tests.faults.table import PAGE, ROWS, render, replaced
from tests.helpers.fault_rows import Row, keep_rows, lost_env_steps, read_rows
from tests.helpers.paths import REPOSITORY

ROOT = REPOSITORY


def row(fault: str, test: str = "tests/a.py::test_a", observed: str = "seen") -> Row:
    return Row(fault=fault, test=test, observed=observed)


FIRST, SECOND = list(SCENARIOS)[:2]


def test_the_page_shows_the_rows_that_were_kept():
    """`python tests/faults/table.py` writes it."""
    text = PAGE.read_text()
    assert text == replaced(text, render(read_rows(ROWS)))


def test_every_row_is_of_a_test_that_is_there():
    rows = read_rows(ROWS)
    assert len({row.fault for row in rows}) >= 20
    for row in rows:
        name, _, test = row.test.partition("::")
        assert f"\ndef {test}(" in (ROOT / name).read_text(), row.test


def test_every_fault_has_a_test_or_says_why_it_has_none():
    seen = {row.fault for row in read_rows(ROWS)}
    for fault, scenario in SCENARIOS.items():
        assert scenario.promised
        assert fault in seen or scenario.tests or scenario.untested, fault


def test_every_test_that_witnesses_names_a_fault_of_the_catalogue():
    """So that a row cannot be lost by a misspelt name in a test that seldom runs."""
    here = Path(__file__)
    for path in (path for path in (ROOT / "tests").rglob("test_*.py") if path != here):
        for fault in re.findall(r'witness\(\s*"([^"{]+)"', path.read_text()):
            assert fault in SCENARIOS, f"{path.name}: {fault}"


def test_rows_of_a_test_replace_its_older_ones_and_no_others(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    keep_rows(path, [row(SECOND), row(FIRST, "tests/b.py::test_b", "old")])
    keep_rows(path, [row(FIRST, "tests/b.py::test_b", "new")])
    assert read_rows(path) == [row(FIRST, "tests/b.py::test_b", "new"), row(SECOND)]


def test_rows_of_a_fault_that_was_renamed_go(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(msgspec.json.encode(row("of another time")) + b"\n")
    keep_rows(path, [row(FIRST)])
    assert read_rows(path) == [row(FIRST)]


def test_a_row_shows_seconds_and_counts_where_there_are_any():
    known = msgspec.structs.replace(row(FIRST), report_s=1.25, lost_env_steps=300)
    begins = f"| {FIRST} | {SCENARIOS[FIRST].promised} | seen | 1.2 s | 300 | `tests/a.py::test_a`"
    assert render([known]).splitlines()[2].startswith(begins)
    assert f"| {SECOND} | {SCENARIOS[SECOND].promised} |  |  |  |" in render([])


def test_what_is_lost_is_what_was_collected_and_not_trained():
    assert lost_env_steps({"env_steps_collected": 900, "env_steps_consumed": 650}) == 250


def test_a_witness_must_know_its_fault(witness):
    with pytest.raises(AssertionError, match=r"catalogue\.py"):
        witness("a fault that nobody has heard of", "seen")
