"""The two files of a study, and what `tianji report` makes of them."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import msgspec
import pytest

from engine.errors import ConfigError, PreflightError
from tests.helpers.bench.study_fakes import make_runs, manifest_of, write_study
from tests.helpers.synthetic_run import write_synthetic_run
from tianji_cli.analysis.convergence import episode_curve
from tianji_cli.analysis.run import load_run
from tianji_cli.bench.study.downsample import thin_curve
from tianji_cli.bench.study.records import LearningCurve, StudyFiles, StudyRun
from tianji_cli.commands.benchmarks.study_report import write_study_report
from tianji_cli.commands.report import report_command
from tianji_cli.output import Output
from tianji_cli.storage.json_files import write_json

RUNS = make_runs({"a": [100, 200, 300], "b": [110, None, 390]})
WRITTEN = ("comparison.json", "report.html", "README.md")


def append(paths: StudyFiles, run: StudyRun) -> None:
    paths.write_result(run.cell, run)


@pytest.fixture
def paths(tmp_path: Path) -> StudyFiles:
    return write_study(tmp_path / "study-1", RUNS)


@pytest.mark.parametrize("name", ["README.md", "report.html", "comparison.json"])
def test_a_study_is_kept_over_nothing_else(paths: StudyFiles, tmp_path: Path, name: str):
    out = tmp_path / "kept"
    out.mkdir()
    (out / name).write_text("of the user")
    with pytest.raises(ConfigError, match="not overwritten"):
        write_study_report(paths.root, out)
    assert [(path.name, path.read_text()) for path in out.iterdir()] == [(name, "of the user")]


@pytest.mark.usefixtures("without_drawing")
def test_another_study_is_not_kept_in_the_same_place(paths: StudyFiles, tmp_path: Path):
    other = write_study(tmp_path / "study-2", RUNS)
    manifest = msgspec.structs.replace(other.read_manifest(), bench_id="another")
    write_json(other.manifest, manifest)
    write_study_report(other.root, tmp_path / "kept")
    before = (tmp_path / "kept" / "study.json").read_bytes()
    write_study_report(other.root, tmp_path / "kept")
    with pytest.raises(ConfigError, match="another study"):
        write_study_report(paths.root, tmp_path / "kept")
    assert (tmp_path / "kept" / "study.json").read_bytes() == before


def test_what_is_written_is_read_again(paths: StudyFiles):
    manifest = paths.read_manifest()
    assert manifest == manifest_of()
    assert paths.read_results(manifest) == RUNS


def test_a_line_that_a_crash_has_cut_is_no_run_and_does_no_harm(paths: StudyFiles):
    data = paths.records.read_bytes()
    paths.records.write_bytes(data[: data.rfind(b"\n", 0, -1) + 20])
    manifest = paths.read_manifest()
    assert len(paths.read_results(manifest)) == len(RUNS) - 1
    append(paths, list(RUNS.values())[-1])
    assert paths.read_results(manifest) == RUNS


@pytest.mark.usefixtures("without_drawing")
def test_a_kept_report_leaves_a_cut_line_out(paths: StudyFiles, tmp_path: Path):
    whole = paths.records.read_bytes()
    paths.records.write_bytes(whole + b'{"schema_version": 1, "cell": {"ta')
    write_study_report(paths.root, tmp_path / "kept")
    assert StudyFiles(tmp_path / "kept").read_results(manifest_of()) == RUNS


def test_a_damaged_line_is_named(paths: StudyFiles):
    with paths.records.open("ab") as file:
        file.write(b'{"cell": 1}\n')
    with pytest.raises(ConfigError) as caught:
        paths.read_results(paths.read_manifest())
    assert caught.value.where == f"{paths.records}:{len(RUNS) + 1}"


def test_the_report_needs_the_two_files_alone(paths: StudyFiles, tmp_path: Path):
    first = write_study_report(paths.root, tmp_path / "kept")
    kept = StudyFiles(tmp_path / "kept")
    before = {name: (kept.root / name).read_bytes() for name in WRITTEN}
    plots = {plot.name: plot.read_bytes() for plot in kept.plots.iterdir()}
    assert set(plots) == {
        f"{name}.{end}"
        for name in ("two-comparison", "two-returns", "two-learning", "one-learning")
        for end in ("png", "svg")
    }
    for name in (*WRITTEN, *(f"plots/{name}" for name in plots)):
        (kept.root / name).unlink()
    again = write_study_report(kept.root, None)
    assert again.comparison == first.comparison
    assert {name: (kept.root / name).read_bytes() for name in WRITTEN} == before
    assert {plot.name: plot.read_bytes() for plot in kept.plots.iterdir()} == plots


@pytest.mark.usefixtures("without_drawing")
def test_both_pages_hold_tables_ratios_and_figures(paths: StudyFiles):
    write_study_report(paths.root, None)
    html, markdown = paths.report.read_text(), paths.readme.read_text()
    assert "<script>" not in html
    assert "Two settings &lt;script&gt;" in html
    assert "default-src 'none'" in html
    for text in (html, markdown):
        assert "2 of 3" in text
        assert "two-b-seed1" in text
        assert "tianji bench small" in text
    assert "| two | b | 475 | 2 of 3 | 390 [110–not reached] |" in markdown
    for line in markdown.splitlines():
        if line.startswith("!["):
            target = line.rpartition("(")[2].rstrip(")")
            assert (paths.root / target).is_file()


@pytest.mark.usefixtures("without_drawing")
def test_the_command_finds_a_study_by_path_id_or_beginning(
    paths: StudyFiles, capsys: pytest.CaptureFixture[str]
):
    for name in (str(paths.root), "study-1", "stud"):
        assert report_command([name], paths.root.parent, None, Output(is_json=True)) is None
        document = json.loads(capsys.readouterr().out)
        assert document["study_id"] == "study-1"
        assert document["tasks"][0]["variants"][1]["num_censored"] == 1
    report_command(["study-1"], paths.root.parent, None, Output())
    shown = capsys.readouterr()
    assert "two: b has 1.00 [1.00–1.00] times the throughput of a" in shown.out
    assert "note: Fewer than 10 seeds" in shown.err


def test_what_cannot_be_reported_says_why(paths: StudyFiles, tmp_path: Path):
    with pytest.raises(ConfigError, match="a report of its own"):
        report_command(["study-1", "study-1"], tmp_path, None, Output())
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(PreflightError):
        write_study_report(paths.root, tmp_path / "file")
    paths.records.unlink()
    with pytest.raises(ConfigError, match="nothing to report"):
        write_study_report(paths.root, None)


def test_a_kept_curve_is_small_and_keeps_its_end(tmp_path: Path):
    run = load_run(write_synthetic_run(tmp_path / "run"))
    full = episode_curve(run.episodes, run.manifest.return_window)
    kept = thin_curve(run, num_points=20)
    assert 15 <= len(kept.t_s) == len(kept.env_steps) == len(kept.return_mean) <= 21
    assert kept.env_steps == sorted(kept.env_steps)
    assert kept.env_steps[-1] == full["env_steps"].iloc[-1]
    assert kept.return_mean[-1] == pytest.approx(full["return_mean"].iloc[-1], abs=1e-3)
    gaps = [b - a for a, b in itertools.pairwise(kept.env_steps)]
    assert max(gaps) < 3 * (kept.env_steps[-1] - kept.env_steps[0]) / 20


def test_a_run_without_a_full_window_has_no_curve(tmp_path: Path):
    run = load_run(write_synthetic_run(tmp_path / "run", num_batches=3))
    assert thin_curve(run) == LearningCurve()
