"""`tianji runs` lists studies and benchmarks beside runs."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.helpers.paths import REPOSITORY
from tests.helpers.synthetic_run import write_synthetic_run
from tianji_cli.bench.listing import list_results
from tianji_cli.commands.runs import list_runs, runs_command
from tianji_cli.output import Output

KINDS = ("bench", "scaling", "transport")


def write_work(root: Path, kind: str, *, num_cells: int = 3, num_finished: int = 3) -> Path:
    """A study or benchmark as far as its documents say what it is and how far it has come."""
    root.mkdir()
    cells = [{"name": f"cell-{number}"} for number in range(num_cells)]
    document = {"schema_version": 1, "started_at": "2026-01-31T23:59:59Z", "cells": cells}
    (root / f"{kind}.json").write_text(json.dumps(document), encoding="utf-8")
    if kind == "study":
        (root / "runs.jsonl").write_text("{}\n" * num_finished + '{"cut', encoding="utf-8")
    else:
        for cell in cells[:num_finished]:
            (root / "cells" / cell["name"]).mkdir(parents=True)
            (root / "cells" / cell["name"] / "cell.json").write_text("{}", encoding="utf-8")
    return root


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """One of each, oldest first; the last is being worked on."""
    places = [
        write_work(tmp_path / "study-a", "study"),
        write_synthetic_run(tmp_path / "a-run", num_batches=4).root,
        *(write_work(tmp_path / f"{kind}-b", kind) for kind in KINDS),
        write_work(tmp_path / "study-c", "study", num_finished=1),
    ]
    for age, place in enumerate(places):
        for file in place.glob("*.json"):
            os.utime(file, ns=(age, 1_000_000_000 + age))
    return tmp_path


def test_each_kind_is_listed_with_its_state_oldest_first(results: Path):
    rows = list_results(results)
    assert [(row.run_id, row.kind, row.status) for row in rows] == [
        ("study-a", "study", "ok"),
        ("a-run", "run", "ok"),
        *((f"{kind}-b", kind, "ok") for kind in KINDS),
        ("study-c", "study", "unfinished"),
    ]
    last = rows[-1]
    assert (last.num_cells, last.num_cells_finished) == (3, 1)
    assert last.started_at == "2026-01-31T23:59:59Z"
    assert [row.run_id for row in list_runs(results)] == ["a-run"]


def test_a_program_sees_the_kind_of_each(results: Path, capsys: pytest.CaptureFixture[str]):
    runs_command(results, Output(is_json=True))
    rows = json.loads(capsys.readouterr().out)["runs"]
    assert {row["kind"] for row in rows} == {"run", "study", *KINDS}
    (run,) = (row for row in rows if row["kind"] == "run")
    assert run["algorithm"] == "ppo"
    assert run["num_cells"] is None


def test_people_see_kind_beginning_and_progress(
    results: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", "160")
    runs_command(results, Output())
    shown = capsys.readouterr().out
    assert "study, 2026-01-31 23:59, 1 of 3 cells" in shown
    assert "transport, 2026-01-31 23:59, 3 of 3 cells" in shown


@pytest.mark.parametrize("kind", ["study", *KINDS])
@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"cells": 3}', b'{"started_at": "x", "cells": {}}', b"\xff"]
)
def test_a_damaged_one_hides_no_other(results: Path, kind: str, content: bytes):
    (results / "z").mkdir()
    (results / "z" / f"{kind}.json").write_bytes(content)
    rows = {row.run_id: row for row in list_results(results)}
    assert len(rows) == 7
    assert rows["z"].status == "unreadable"
    assert rows["z"].problem


def test_what_is_no_document_is_nothing(results: Path):
    (results / "d" / "study.json").mkdir(parents=True)
    (results / "e").mkdir()
    os.mkfifo(results / "e" / "bench.json")
    (results / "f").mkdir()
    (results / "f" / "bench.json").symlink_to("/dev/zero")
    assert len(list_results(results)) == 6


def test_records_that_cannot_be_read_are_said(results: Path):
    (results / "study-a" / "runs.jsonl").unlink()
    os.mkfifo(results / "study-a" / "runs.jsonl")
    rows = {row.run_id: row for row in list_results(results)}
    assert rows["study-a"].status in ("unreadable", "unfinished")


def test_what_is_kept_in_the_repository_is_listed_as_finished():
    kept = REPOSITORY / "results" / "reference"
    rows = list_results(kept)
    assert {row.kind for row in rows} == {"study", *KINDS}
    # It was ended before its last runs, as its page says.
    assert [row.run_id for row in rows if row.status != "ok"] == ["staleness-harm"]


def test_an_empty_study_is_finished(tmp_path: Path):
    write_work(tmp_path / "none", "study", num_cells=0, num_finished=0)
    assert [row.status for row in list_results(tmp_path)] == ["ok"]
