"""The two files of a reproduction, and what `tianji report` makes of them."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from engine.errors import ConfigError
from tests.helpers.bench.published_fakes import (
    ROWS,
    SMALL,
    judged_run,
    make_runs,
    manifest_of,
    write_published,
)
from tianji_cli.bench.published.records import PublishedFiles
from tianji_cli.commands.benchmarks.bench_published import KIND, write_published_report
from tianji_cli.commands.report import report_command
from tianji_cli.output import Output
from tianji_cli.storage.json_files import write_json

MEANS = {"many": [98.0, 101.0, 104.0], "one": [-80.0, -81.0]}
WRITTEN = ("comparison.json", "report.html", "README.md")
QUIET = Output(verbosity=-1)


@pytest.fixture
def files(tmp_path: Path) -> PublishedFiles:
    return write_published(tmp_path / "published-1", make_runs(MEANS))


def test_the_report_is_rebuilt_from_the_two_files_alone(files: PublishedFiles, tmp_path: Path):
    manifest = files.read_manifest()
    argv = [*manifest.argv, "--results", "/home/me/results"]
    write_json(files.manifest, msgspec.structs.replace(manifest, argv=argv))
    first = write_published_report([files.root], tmp_path / "kept")
    kept = PublishedFiles(tmp_path / "kept")
    plots = {plot.name: plot.read_bytes() for plot in kept.plots.iterdir()}
    assert set(plots) == {f"{n}.{end}" for n in ("agreement", "learning") for end in ("png", "svg")}
    before = {name: (kept.root / name).read_bytes() for name in WRITTEN}
    for name in (*WRITTEN, *(f"plots/{name}" for name in plots)):
        (kept.root / name).unlink()
    again = write_published_report([kept.root], None)
    assert again.comparison == first.comparison
    assert {name: (kept.root / name).read_bytes() for name in WRITTEN} == before
    assert {plot.name: plot.read_bytes() for plot in kept.plots.iterdir()} == plots


@pytest.mark.usefixtures("without_drawing")
def test_both_pages_hold_figures_sources_and_verdicts(files: PublishedFiles):
    write_published_report([files.root], None)
    html, markdown = files.report.read_text(), files.readme.read_text()
    assert "<script>" not in html
    assert "default-src 'none'" in html
    assert "Its &lt;b&gt; differs." in html
    for text in (html, markdown):
        assert "100 ± 5 (3 runs)" in text
        assert "-80 ± 10 (100 episodes of 1 run)" in text
        assert "101.0 [93.5 to 108.5]" in text
        assert "https://a.b/figure" in text
        assert "0123abc45678" in text
        assert "agrees" in text


@pytest.mark.usefixtures("without_drawing")
def test_report_prints_the_document(files: PublishedFiles, capsys: pytest.CaptureFixture[str]):
    report_command([str(files.root)], files.root.parent, None, Output(is_json=True))
    found = json.loads(capsys.readouterr().out)
    assert [(row["row"], row["verdict"]) for row in found["rows"]] == [
        ("many", "agrees"),
        ("one", "agrees"),
    ]


@pytest.mark.usefixtures("without_drawing")
def test_a_row_of_a_later_reproduction_replaces_that_of_an_earlier_one(
    files: PublishedFiles, tmp_path: Path
):
    only = msgspec.structs.replace(SMALL, rows={"one": ROWS["one"]})
    new = write_published(
        tmp_path / "again",
        make_runs({"one": [-50.0, -51.0]}, only),
        manifest_of(only, bench_id="again"),
    )
    kept = tmp_path / "kept"
    write_published_report([files.root], kept)
    report = write_published_report([kept, new.root], kept)
    many, one = report.comparison.rows
    assert [run.return_mean for run in many.runs] == pytest.approx(MEANS["many"])
    assert [run.return_mean for run in one.runs] == pytest.approx([-50.0, -51.0])
    again = write_published_report([kept], None)
    assert again.comparison == report.comparison
    assert PublishedFiles(kept).read_manifest().experiments["one"] == {"name": "again"}


@pytest.mark.usefixtures("without_drawing")
def test_a_row_without_a_run_replaces_nothing(files: PublishedFiles, tmp_path: Path):
    empty = write_published(tmp_path / "empty", make_runs({"one": [-50.0]}))
    report = write_published_report([files.root, empty.root], tmp_path / "kept")
    many, one = report.comparison.rows
    assert (len(many.runs), len(one.runs)) == (3, 1)


@pytest.mark.usefixtures("without_drawing")
def test_several_need_a_directory_and_one_machine(files: PublishedFiles, tmp_path: Path):
    with pytest.raises(ConfigError, match="several need a directory"):
        write_published_report([files.root, files.root], None)
    manifest = manifest_of(bench_id="other", machine_id="m2")
    runs = {cell: judged_run(cell, 1.0, "m2") for cell in manifest.cells}
    other = write_published(tmp_path / "other", runs, manifest)
    with pytest.raises(ConfigError, match="made on machine m2"):
        write_published_report([files.root, other.root], tmp_path / "kept")
    with pytest.raises(ConfigError, match="no tables to archive"):
        KIND.report([files.root], tmp_path / "kept", QUIET, archives=True)


@pytest.mark.usefixtures("without_drawing")
@pytest.mark.parametrize(
    ("means", "is_complete"),
    [
        (MEANS, True),
        ({**MEANS, "one": [-80.0]}, False),
        ({**MEANS, "many": [150.0, 151.0, 152.0]}, True),
        ({**MEANS, "many": [50.0, 51.0, 52.0]}, False),
    ],
)
def test_it_is_complete_unless_a_run_is_missing_or_a_row_is_worse(
    means: dict[str, list[float]], is_complete: bool, tmp_path: Path
):
    files = write_published(tmp_path / "b", make_runs(means))
    assert KIND.report([files.root], None, QUIET) is is_complete
