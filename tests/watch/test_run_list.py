"""The list of runs: what is there, at what cost, and never what links lead to."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from tests.helpers.synthetic_run import make_trace, write_rows, write_synthetic_run
from tianji_cli.storage.run_dir import RunPaths
from tianji_cli.watch import run_list
from tianji_cli.watch.run_list import MAX_LIVE, MAX_RUNS, ListedRun, RunList


@pytest.fixture
def results(tmp_path: Path) -> Path:
    (tmp_path / "results").mkdir()
    return tmp_path / "results"


def listed(results: Path) -> dict[str, ListedRun]:
    return {row.run_id: row for row in RunList(results).view().runs}


def outdate(paths: RunPaths, age_s: float) -> None:
    then_s = time.time() - age_s
    for path in (paths.manifest, *paths.trace.iterdir()):
        os.utime(path, (then_s, then_s))


def test_finished_and_running_runs(results):
    write_synthetic_run(results / "done", num_batches=20)
    write_synthetic_run(results / "failed", status="failed", num_batches=20)
    write_synthetic_run(results / "live", has_summary=False)
    old = write_synthetic_run(results / "old", has_summary=False, num_batches=20)
    outdate(old, 1000)
    rows = listed(results)
    assert {name: (row.status, row.liveness) for name, row in rows.items()} == {
        "done": ("ok", "over"),
        "failed": ("failed", "over"),
        "live": ("unfinished", "live"),
        "old": ("unfinished", "silent"),
    }
    assert rows["live"].per_s == pytest.approx(10_000, rel=0.1)
    assert rows["live"].return_mean == pytest.approx(494.77)
    assert rows["old"].age_s == pytest.approx(1000, abs=60)
    assert rows["done"].env_id == "CartPole-v1"


def test_the_newest_come_first_and_not_too_many(results, monkeypatch):
    monkeypatch.setattr(run_list, "MAX_RUNS", 3)
    for i in range(5):
        paths = write_synthetic_run(results / f"run-{i}", num_batches=2)
        os.utime(paths.manifest, (1000 + i, 1000 + i))
    view = RunList(results).view()
    assert [row.run_id for row in view.runs] == ["run-4", "run-3", "run-2"]
    assert view.num_left_out == 2
    assert MAX_RUNS > 100


def test_a_run_that_has_not_changed_is_not_read_again(results, monkeypatch):
    paths = write_synthetic_run(results / "run", num_batches=2)
    runs, reads = RunList(results), list[str]()
    inner = run_list.row_of_own
    monkeypatch.setattr(
        run_list, "row_of_own", lambda paths: (reads.append(paths.run_id), inner(paths))[1]
    )
    runs.view()
    runs.view()
    assert reads == ["run"]
    paths.summary.write_bytes(paths.summary.read_bytes().replace(b'"ok"', b'"failed"'))
    assert runs.view().runs[0].status == "failed"
    paths.summary.unlink()
    assert runs.view().runs[0].status == "unfinished"
    assert len(reads) == 3


def test_few_running_runs_are_looked_into(results, monkeypatch):
    looked: list[Path] = []
    monkeypatch.setattr(run_list, "last_rows", lambda root, kind: looked.append(root) or [])
    for i in range(MAX_LIVE + 5):
        write_synthetic_run(results / f"run-{i}", num_batches=1, has_summary=False)
    assert len(RunList(results).view().runs) == MAX_LIVE + 5
    assert len(set(looked)) == MAX_LIVE


def test_links_that_lead_out_are_named_and_not_followed(results, tmp_path):
    outside = write_synthetic_run(tmp_path / "outside", num_batches=2)
    inside = write_synthetic_run(results / "inside", num_batches=2)
    (results / "out").symlink_to(outside.root)
    (results / "alias").symlink_to(inside.root)
    manifest_only = results / "manifest-only"
    manifest_only.mkdir()
    (manifest_only / "manifest.json").symlink_to(outside.manifest)
    rows = listed(results)
    assert rows["out"].status == rows["manifest-only"].status == "unreadable"
    assert "link" in rows["out"].problem
    assert rows["out"].env_id == rows["manifest-only"].env_id == ""
    assert rows["alias"].status == "ok"
    runs = RunList(results)
    assert runs.paths_of("out") is None
    assert runs.paths_of("alias") is not None


def test_only_runs_of_the_directory_can_be_opened(results, tmp_path):
    write_synthetic_run(tmp_path / "outside", num_batches=2)
    write_synthetic_run(results / "run", num_batches=2)
    (results / "no-run").mkdir()
    runs = RunList(results)
    assert runs.paths_of("run") == RunPaths(results / "run")
    for name in ("../outside", str(tmp_path / "outside"), "..", ".", "", "no-run", "none", "a\0b",
                 "run/../../outside", "run/"):  # fmt: skip
        assert runs.paths_of(name) is None


def test_damaged_documents_hide_no_other(results):
    write_synthetic_run(results / "good", num_batches=2)
    for name, data in {"bad": b"{", "worse": b"[" * 10**5, "odd": b"\xff"}.items():
        (results / name).mkdir()
        (results / name / "manifest.json").write_bytes(data)
    rows = listed(results)
    assert rows["good"].status == "ok"
    assert {rows[name].status for name in ("bad", "worse", "odd")} == {"unreadable"}


def test_studies_and_benchmarks_are_listed(results):
    (results / "study").mkdir()
    document = {"schema_version": 1, "started_at": "2026-01-31T00:00:00Z", "cells": [{}, {}]}
    (results / "study/study.json").write_text(json.dumps(document))
    row = listed(results)["study"]
    assert (row.kind, row.num_cells, row.num_cells_finished) == ("study", 2, 0)


def test_no_directory_and_no_runs(results, tmp_path):
    assert RunList(results).view().runs == []
    assert RunList(tmp_path / "none").view().runs == []


def test_a_directory_that_cannot_be_read_is_told(results, monkeypatch):
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert "Permission denied" in RunList(results).view().problem


def test_rows_that_come_change_the_list(results):
    paths = write_synthetic_run(results / "run", num_batches=1, has_summary=False)
    runs = RunList(results)
    before = runs.view().runs[0].return_mean
    write_rows(paths.trace, make_trace(1.0, 450.0, 120).rows)
    after = runs.view().runs[0].return_mean
    assert before is not None
    assert after is not None
    assert after > before
