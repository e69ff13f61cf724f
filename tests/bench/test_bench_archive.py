"""A benchmark that is kept: the same figures from fewer files, and no path of the machine."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import msgspec
import pytest

from engine.errors import ConfigError
from engine.trace.reader import read_table
from engine.trace.records import Episode
from tests.helpers.bench.made_bench import write_bench
from tianji_cli.bench.comparison.results import BenchFiles
from tianji_cli.commands.benchmarks.bench_report import write_archive, write_bench_report
from tianji_cli.commands.report import report_command
from tianji_cli.output import Output
from tianji_cli.storage.json_files import write_json
from tianji_cli.storage.masking import redact_paths


@pytest.fixture(autouse=True)
def _no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tianji_cli.commands.benchmarks.bench_report._draw", lambda *_: [])


def make(root: Path) -> Path:
    """A benchmark as a machine leaves it: with paths, and with more files than are needed."""
    write_bench(root)
    manifest = BenchFiles(root).read_manifest()
    systems = {
        name: found and msgspec.structs.replace(found, python="/secret/bin/python")
        for name, found in manifest.systems.items()
    }
    argv = ["tianji", "bench", "--xingtian-python=/secret/python"]
    machine = msgspec.structs.replace(manifest.machine, hostname="secret")
    changed = msgspec.structs.replace(manifest, systems=systems, argv=argv, machine=machine)
    write_json(BenchFiles(root).manifest, changed)
    for cell in manifest.cells:
        place = BenchFiles(root).files(cell)
        place.output.write_text("/secret/said")
        document = json.loads(place.result.read_text())
        write_json(place.result, {**document, "command": ["/secret/bin/python", "-u"]})
    return root


def figures_of(path: Path) -> dict[str, object]:
    document = json.loads(path.read_text())
    return {key: value for key, value in document.items() if key != "bench_ids"}


def test_the_report_of_what_was_kept_has_the_same_figures(tmp_path):
    root = make(tmp_path / "b")
    write_bench_report([root], None)
    write_archive([root], tmp_path / "kept")
    first, kept = root / "comparison.json", tmp_path / "kept" / "comparison.json"
    assert figures_of(kept) == figures_of(first)
    assert "9 cells agree" in (tmp_path / "kept" / "report.html").read_text()
    before = kept.read_bytes()
    kept.unlink()
    report_command([str(tmp_path / "kept")], tmp_path, None, Output(no_color=True))
    assert kept.read_bytes() == before


def test_nothing_of_the_machine_but_its_kind_is_kept(tmp_path):
    write_archive([make(tmp_path / "b")], tmp_path / "kept")
    files = [path for path in (tmp_path / "kept").rglob("*") if path.is_file()]
    assert {"".join(path.suffixes) for path in files} == {".json", ".jsonl.gz", ".html"}
    for path in files:
        data = path.read_bytes()
        text = gzip.decompress(data) if path.suffix == ".gz" else data
        assert b"secret" not in text, path
    size = sum(path.stat().st_size for path in files if path.suffix == ".gz")
    assert size < sum(path.stat().st_size for path in (tmp_path / "b").rglob("*.jsonl")) / 4


def test_an_archive_is_archived_whole(tmp_path):
    write_archive([make(tmp_path / "b")], tmp_path / "kept")
    write_archive([tmp_path / "kept"], tmp_path / "again")
    first, again = tmp_path / "kept" / "comparison.json", tmp_path / "again" / "comparison.json"
    assert figures_of(again) == figures_of(first)
    tables = [sorted(p.name for p in place.rglob("*.gz")) for place in (first.parent, again.parent)]
    assert tables[0] == tables[1] != []


def test_what_is_kept_is_not_overwritten(tmp_path):
    root = make(tmp_path / "b")
    write_archive([root], tmp_path / "kept")
    with pytest.raises(ConfigError, match="not overwritten"):
        write_archive([root], tmp_path / "kept")


@pytest.mark.parametrize(("count", "has_place"), [(2, True), (1, False)])
def test_one_benchmark_and_one_place_are_needed(tmp_path, count, has_place):
    root = make(tmp_path / "b")
    with pytest.raises(ConfigError, match="needs one benchmark and one directory"):
        write_archive([root] * count, tmp_path / "kept" if has_place else None)


def test_a_damaged_compressed_table_is_named(tmp_path):
    (tmp_path / "episodes.jsonl.gz").write_bytes(gzip.compress(b"{}\n" * 50)[:-9])
    with pytest.raises(ConfigError, match=r"episodes\.jsonl\.gz"):
        read_table(tmp_path, Episode)


def test_only_the_path_of_an_option_is_cut():
    words = ["tianji", "a=b", "x=/a/b.py", "/c/d"]
    assert list(map(redact_paths, words)) == ["tianji", "a=b", "x=b.py", "d"]
