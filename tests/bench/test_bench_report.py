"""The report of a benchmark: rebuilt from files alone, always the same, never mixing machines."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec
import pytest

from engine.errors import ConfigError
from tests.helpers.bench.made_bench import write_bench
from tianji_cli.bench.comparison.results import BenchFiles
from tianji_cli.bench.systems.base import Installed
from tianji_cli.commands.benchmarks.bench_report import show_comparison, write_bench_report
from tianji_cli.commands.report import report_command
from tianji_cli.git_state import GitState
from tianji_cli.output import Output
from tianji_cli.storage.json_files import write_json


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_bench(tmp_path_factory.mktemp("bench") / "bench-made")
    write_bench_report([root], None)
    return root


@pytest.fixture
def _no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes most of a report's time and is looked at elsewhere."""
    monkeypatch.setattr("tianji_cli.commands.benchmarks.bench_report._draw", lambda *_: [])


def page_of(root: Path) -> str:
    return (root / "report.html").read_text(encoding="utf-8")


def test_the_same_files_give_the_same_page_and_figures(bench):
    before = {p.name: p.read_bytes() for p in (bench / "plots").iterdir()}
    first = page_of(bench), (bench / "comparison.json").read_bytes()
    write_bench_report([bench], None)
    assert (page_of(bench), (bench / "comparison.json").read_bytes()) == first
    assert {p.name: p.read_bytes() for p in (bench / "plots").iterdir()} == before


@pytest.mark.usefixtures("_no_figures")
def test_figures_come_from_the_traces_not_from_what_was_written(tmp_path):
    root = write_bench(tmp_path / "b")
    paths = BenchFiles(root)
    cell = next(c for c in paths.read_manifest().cells if c.system == "tianji")
    honest = write_bench_report([root], None).comparison
    document = json.loads(paths.files(cell).result.read_text())
    document["figures"]["collect_per_s"] = 1e9
    paths.files(cell).result.write_text(json.dumps(document))
    assert write_bench_report([root], None).comparison == honest
    assert f"these do not: {cell.name}" in page_of(root)


def test_the_page_needs_no_network_and_runs_no_script(bench):
    page = page_of(bench)
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert not re.search(r'(?:src|href)="(?:https?:)?//', page)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_every_link_of_the_page_leads_somewhere(bench):
    links = [x for x in re.findall(r'href="([^"#]+)"', page_of(bench)) if not x.startswith("data:")]
    assert len(links) > 30
    for link in links:
        assert (bench / link).is_file(), link


def test_the_page_says_what_must_be_said(bench):
    page = page_of(bench)
    for words in (
        "Number of blocks: 3",
        "paper, other hardware",
        "Parity: is it the same work?",
        "right-censored",
        "1 crashed",
        "3 files of shared memory (3.0 MiB)",
        "3 processes, 3 ports",
        "more than half of the baseline&#39;s runs did not reach",
        "TianJi&#39;s trained env steps are at most 1 version old",
        "9 cells agree",
    ):
        assert words in page, words


def test_the_figures_are_all_there(bench):
    names = {path.stem for path in (bench / "plots").glob("*.svg")}
    assert names == {
        f"t-{name}"
        for name in (
            "throughput",
            "time_to_threshold",
            "learning_over_time",
            "learning_over_steps",
            "reached_over_time",
            "phases",
            "staleness",
        )
    }


@pytest.mark.usefixtures("_no_figures")
def test_report_prints_a_table_or_one_document(tmp_path, capsys):
    bench = write_bench(tmp_path / "bench-made")
    report_command([str(bench)], bench.parent, None, Output(no_color=True))
    shown = capsys.readouterr()
    assert "XingTian" in shown.out
    assert "censored" in shown.out
    assert "note: Number of blocks: 3" in shown.err
    report_command([bench.name], bench.parent, None, Output(is_json=True))
    document = json.loads(capsys.readouterr().out)
    assert document["schema_version"] == 1
    rllib = document["tasks"][0]["peers"][1]
    assert rllib["throughput_ratio"]["value"]["estimate"] == pytest.approx(2.0, rel=0.01)


@pytest.mark.usefixtures("_no_figures")
def test_blocks_of_one_machine_can_be_merged(bench, tmp_path):
    more = write_bench(tmp_path / "more", seeds=(3, 4))
    comparison = write_bench_report([bench, more], tmp_path / "out").comparison
    assert comparison.num_blocks == 5
    assert comparison.tasks[0].systems[0].num_cells == 5
    with pytest.raises(ConfigError, match="in several of these"):
        write_bench_report([more, more], tmp_path / "out")


@pytest.mark.usefixtures("_no_figures")
def test_what_other_code_or_other_systems_did_is_not_merged(tmp_path):
    first, more = write_bench(tmp_path / "b"), write_bench(tmp_path / "more", seeds=(3, 4))
    paths = BenchFiles(more)
    manifest = paths.read_manifest()
    newer = Installed(python="python", versions={"fake": "2"})
    others = {**manifest.systems, "rllib": newer}, {**manifest.systems, "rllib": None}
    for changed, words in (
        (msgspec.structs.replace(manifest, git=GitState(commit="f" * 40, dirty=False)), "commit f"),
        (msgspec.structs.replace(manifest, systems=others[0]), "rllib: fake was 1, is 2"),
        (msgspec.structs.replace(manifest, systems=others[1]), "rllib: fake was 1, is not there"),
    ):
        write_json(paths.manifest, changed)
        with pytest.raises(ConfigError, match=words) as caught:
            write_bench_report([first, more], tmp_path / "out")
        assert "report each on its own" in caught.value.fix
        write_bench_report([more], tmp_path / "out")


def test_a_system_that_is_not_known_here_is_one_error(tmp_path):
    root = write_bench(tmp_path / "b")
    manifest = BenchFiles(root).read_manifest()
    systems = {**manifest.systems, "ape-x": None}
    write_json(BenchFiles(root).manifest, msgspec.structs.replace(manifest, systems=systems))
    with pytest.raises(ConfigError, match="unknown systems: ape-x"):
        write_bench_report([root], None)


def test_machines_are_never_mixed(bench, tmp_path):
    other = write_bench(tmp_path / "other", seeds=(3, 4), machine="elsewhere")
    with pytest.raises(ConfigError, match="run on machine elsewhere"):
        write_bench_report([bench, other], tmp_path / "out")
    smuggled = write_bench(tmp_path / "smuggled")
    cell = next((smuggled / "cells").rglob("cell.json"))
    document = json.loads(cell.read_text())
    document["machine_id"] = "elsewhere"
    cell.write_text(json.dumps(document))
    with pytest.raises(ConfigError, match="run on machine elsewhere, it was begun on"):
        write_bench_report([smuggled], None)


@pytest.mark.usefixtures("_no_figures")
def test_an_unfinished_benchmark_is_reported_as_such(tmp_path):
    root = write_bench(tmp_path / "b")
    next((root / "cells").rglob("cell.json")).unlink()
    report = write_bench_report([root], None)
    assert any("Unfinished: 1 of 9" in warning for warning in report.comparison.warnings)
    for result in (root / "cells").rglob("cell.json"):
        result.unlink()
    with pytest.raises(ConfigError, match="nothing has been finished"):
        write_bench_report([root], None)


def test_a_newer_schema_is_refused(tmp_path):
    root = write_bench(tmp_path / "b")
    document = json.loads((root / "bench.json").read_text())
    (root / "bench.json").write_text(json.dumps({**document, "schema_version": 99}))
    with pytest.raises(ConfigError, match="newer"):
        write_bench_report([root], None)


@pytest.mark.usefixtures("_no_figures")
def test_the_terminal_table_fits_eighty_columns(tmp_path, capsys):
    bench = write_bench(tmp_path / "b")
    show_comparison(write_bench_report([bench], None), Output(no_color=True))
    rows = capsys.readouterr().out.splitlines()
    assert sum(line.startswith(("TianJi", "RLlib", "XingTian")) for line in rows) == 3
    assert all(len(line) <= 80 for line in rows if "report:" not in line)


@pytest.mark.parametrize("content", [b"{", b"\xff", b'{"a":' * 100_000, b'{"cells": ["\xff"]}'])
def test_a_document_that_cannot_be_read_is_one_error(tmp_path, content):
    (tmp_path / "bench.json").write_bytes(content)
    with pytest.raises(ConfigError, match="not a file of a benchmark"):
        BenchFiles(tmp_path).read_manifest()
