"""Comparisons of runs: each in a directory of its own, each saying which settings differ."""

from __future__ import annotations

import io
import json
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from engine.errors import ConfigError
from tests.helpers.synthetic_run import HOSTILE, write_synthetic_run
from tianji_cli.analysis.run import ManifestView
from tianji_cli.analysis.settings import (
    MAX_SETTINGS,
    MAX_VALUE,
    differing_settings,
    setting_cells,
    settings_note,
)
from tianji_cli.commands.report import report_command, write_report
from tianji_cli.output import Output
from tianji_cli.render.run.tables import settings_table
from tianji_cli.storage.comparison_dir import COMPARED_FILE, claim_comparison
from tianji_cli.storage.run_dir import RunPaths

pytestmark = pytest.mark.usefixtures("without_drawing")


def manifest(**experiment: object) -> ManifestView:
    return ManifestView({"experiment": experiment})


def found(*experiments: dict[str, object]) -> dict[str, list[object]]:
    differences = differing_settings([manifest(**one) for one in experiments])
    return {item.setting: list(item.values) for item in differences.settings}


def runs_in(results: Path, *names: str) -> list[RunPaths]:
    for name in names:
        (results / name).mkdir()
    return [RunPaths(results / name) for name in names]


@pytest.fixture
def runs(tmp_path: Path) -> list[RunPaths]:
    made = [write_synthetic_run(tmp_path / name, num_batches=4) for name in ("a", "b", "c")]
    for seed, run in enumerate(made):
        text = json.loads(run.manifest.read_text(encoding="utf-8"))
        text["experiment"]["seed"] = seed
        text["experiment"]["algorithm"]["learning_rate"] = 0.001 if seed else HOSTILE
        run.manifest.write_text(json.dumps(text), encoding="utf-8")
    return made


def test_another_comparison_overwrites_nothing(runs: list[RunPaths], tmp_path: Path):
    first = write_report(runs[:2], None)
    before = {path: path.read_bytes() for path in (first.report, *first.figures)}
    second, third = write_report(runs[1:], None), write_report(runs, None)
    turned = write_report([runs[1], runs[0]], None)
    places = [result.report.parent.name for result in (first, second, third, turned)]
    assert places == ["comparison", "comparison-2", "comparison-3", "comparison-4"]
    assert {path: path.read_bytes() for path in before} == before
    assert write_report(runs[:2], None).report == first.report
    assert {path: path.read_bytes() for path in before} == before


def contents(place: Path) -> dict[str, bytes]:
    return {str(p.relative_to(place)): p.read_bytes() for p in place.rglob("*") if p.is_file()}


@pytest.mark.parametrize("others", [slice(1, 2), slice(0, 2), slice(1, None, -1)])
def test_out_renews_its_own_report_and_overwrites_no_other(
    runs: list[RunPaths], tmp_path: Path, others: slice
):
    out = tmp_path / "kept"
    out.mkdir()
    (out / "notes.txt").write_text("of the user")
    write_report(runs[:1], out)
    before = contents(out)
    assert before["notes.txt"] == b"of the user"
    with pytest.raises(ConfigError, match="not overwritten"):
        write_report(runs[others], out)
    assert contents(out) == before
    write_report(runs[:1], out)
    assert contents(out) == before


@pytest.mark.parametrize("name", ["report.html", "plots/rates.png", "compared.json"])
def test_out_replaces_nothing_that_no_report_has_written(
    runs: list[RunPaths], tmp_path: Path, name: str
):
    out = tmp_path / "kept"
    (out / name).parent.mkdir(parents=True)
    (out / name).write_text("of the user")
    with pytest.raises(ConfigError, match="not overwritten"):
        write_report(runs[:1], out)
    assert contents(out) == {name: b"of the user"}


def test_out_may_be_the_run_itself_and_no_other_run(runs: list[RunPaths]):
    at_home = write_report(runs[:1], None)
    assert write_report(runs[:1], runs[0].root).report == at_home.report
    with pytest.raises(ConfigError, match="not overwritten"):
        write_report(runs[1:2], runs[0].root)


@pytest.mark.parametrize("content", [None, b"", b"{}", b"[1", b'{"runs": 3}', b"\xff"])
def test_a_directory_of_nobody_knows_whom_is_left_alone(tmp_path: Path, content: bytes | None):
    runs = runs_in(tmp_path, "a", "b")
    old = tmp_path / "comparison"
    old.mkdir()
    (old / "report.html").write_text("of an older version", encoding="utf-8")
    if content is not None:
        (old / COMPARED_FILE).write_bytes(content)
    assert claim_comparison(tmp_path, runs) == tmp_path / "comparison-2"


def test_what_is_no_directory_is_left_alone(tmp_path: Path):
    runs = runs_in(tmp_path, "a", "b", "elsewhere")
    (tmp_path / "comparison").write_text("mine", encoding="utf-8")
    (tmp_path / "comparison-2").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "comparison-3").symlink_to(tmp_path / "nowhere")
    assert claim_comparison(tmp_path, runs[:2]) == tmp_path / "comparison-4"
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_an_empty_directory_is_taken(tmp_path: Path):
    (tmp_path / "comparison").mkdir()
    assert claim_comparison(tmp_path, runs_in(tmp_path, "a", "b")) == tmp_path / "comparison"


def test_moved_results_keep_their_comparisons(tmp_path: Path):
    (tmp_path / "here").mkdir()
    claim_comparison(tmp_path / "here", runs_in(tmp_path / "here", "a", "b"))
    (tmp_path / "here").rename(tmp_path / "there")
    moved = [RunPaths(tmp_path / "there" / name) for name in ("a", "b")]
    assert claim_comparison(tmp_path / "there", moved) == tmp_path / "there" / "comparison"


def test_differing_settings_are_in_page_terminal_and_document(
    runs: list[RunPaths], capsys: pytest.CaptureFixture[str]
):
    names = [str(run.root) for run in runs]
    report_command(names, runs[0].root.parent, None, Output(is_json=True))
    document = json.loads(capsys.readouterr().out)
    assert document["differences"]["settings"] == [
        {"setting": "algorithm.learning_rate", "values": [HOSTILE, 0.001, 0.001]},
        {"setting": "seed", "values": [0, 1, 2]},
    ]
    report_command(names, runs[0].root.parent, None, Output())
    shown = capsys.readouterr().out
    assert "settings that differ" in shown
    assert "algorithm.learning_rate" in shown
    page = Path(document["report"]).read_text(encoding="utf-8")
    part = page.partition("<h2>Settings that differ</h2>")[2].partition("</section>")[0]
    assert '<th scope="row">seed</th><td>0</td><td>1</td><td>2</td>' in part
    assert "<script>" not in part


def test_a_single_run_differs_from_none(runs: list[RunPaths]):
    result = write_report(runs[:1], None)
    assert result.document.differences is None
    assert "Settings that differ" not in result.report.read_text(encoding="utf-8")


def test_equal_experiments_say_so(tmp_path: Path):
    result = write_report(
        [write_synthetic_run(tmp_path / name, num_batches=4) for name in ("a", "b")], None
    )
    assert result.document.differences is not None
    assert result.document.differences.settings == []
    words = settings_note(result.document.differences)
    assert words == "none: the experiments of all runs are the same"
    assert words in result.report.read_text(encoding="utf-8")


def test_nested_keys_are_named_as_settings_are_typed():
    ours = {"stop": {"env_steps": 100}, "policy": "tianji", "env": {"kwargs": {"a": [1, 2]}}}
    theirs = {"stop": {"env_steps": 100}, "policy": "local", "env": {"kwargs": {"a": [1]}}}
    assert found(ours, theirs) == {"policy": ["tianji", "local"], "env.kwargs.a": ["[1, 2]", "[1]"]}


@pytest.mark.parametrize(
    ("ours", "theirs", "differ"),
    [
        (1, 1.0, False),
        (1, True, True),
        (0, False, True),
        ("1", 1, True),
        (None, "absent", False),
        (0, "absent", True),
        (2**70, 2**70 + 1, True),
        (10**400, 1, True),
        ({}, "absent", False),
        ({"x": 1}, 3, True),
    ],
)
def test_what_counts_as_another_value(ours: object, theirs: object, differ: bool):
    other = {} if theirs == "absent" else {"key": theirs}
    assert bool(found({"key": ours}, other)) is differ


def test_lists_and_values_are_bounded():
    many = {f"k{i:04}": "x" * 10_000 for i in range(3000)}
    differences = differing_settings([manifest(**many), manifest(**dict.fromkeys(many, 2**90))])
    assert len(differences.settings) == MAX_SETTINGS
    assert differences.num_left_out == 3000 - MAX_SETTINGS
    assert all(len(cell) <= MAX_VALUE for s in differences.settings for cell in setting_cells(s))
    msgspec.json.encode(differences)
    console = Console(file=io.StringIO(), width=80)
    console.print(settings_table(differences, ["a", "b"]))
    assert isinstance(console.file, io.StringIO)
    assert "and 2,900 more" in console.file.getvalue()


def test_experiments_nested_without_end_are_compared():
    deep: dict[str, object] = {"x": 1}
    for _ in range(400):
        deep = {"d": deep}
    assert all(len(name) < 200 for name in found(deep, {"d": 1}))
