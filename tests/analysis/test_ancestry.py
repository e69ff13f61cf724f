"""The report of a resumed run begins where the first of its runs began."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.helpers.synthetic_run import write_synthetic_run
from tianji_cli.analysis.ancestry import ancestors_of
from tianji_cli.analysis.run import load_run
from tianji_cli.analysis.verify import examine_runs
from tianji_cli.commands.report import write_report
from tianji_cli.render.run.titles import return_over_steps
from tianji_cli.storage.run_dir import RunPaths

JOINT_S = 4.0


def resume(paths: RunPaths, origin: str, elapsed_s: float = JOINT_S) -> None:
    """Makes a run one that went on from another, later on the same timeline."""
    manifest = json.loads(paths.manifest.read_bytes())
    counters = {"elapsed_s": elapsed_s, "env_steps_collected": 40_000}
    manifest["resumed_from"] = {"run_id": origin, "version": 0, "updates": 0, "counters": counters}
    paths.manifest.write_text(json.dumps(manifest))
    for table in paths.trace.glob("*.jsonl"):
        rows = [json.loads(line) for line in table.read_text().splitlines()]
        for row in rows:
            row["t_s"] += elapsed_s
            if "env_steps_collected" in row:
                row["env_steps_collected"] += 40_000
        table.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def chain(tmp_path: Path) -> list[RunPaths]:
    """Three runs, each of which went on from the one before."""
    runs = [write_synthetic_run(tmp_path / f"day{number}", num_batches=60) for number in (1, 2, 3)]
    resume(runs[1], "day1")
    resume(runs[2], "day2", 2 * JOINT_S)
    return runs


def test_the_curve_is_that_of_all_runs_until_each_was_left(chain: list[RunPaths]):
    own = [len(load_run(paths).episodes) for paths in chain]
    (examined,) = examine_runs(chain[2:])
    curve = examined.curves.episodes
    assert examined.curves.joints == ((JOINT_S, 40_000), (2 * JOINT_S, 40_000))
    assert curve["t_s"].is_monotonic_increasing
    assert curve["env_steps"].iloc[0] < 40_000
    assert 0 < len(curve) - own[2] < own[0] + own[1], "what was lost with a run is not drawn"
    first = load_run(chain[0]).episodes
    assert (curve["t_s"] <= JOINT_S).sum() == sum(row.t_s <= JOINT_S for row in first)
    assert not any("cannot be read" in warning for warning in examined.warnings)


def test_the_page_shows_where_it_goes_on(chain: list[RunPaths], request: pytest.FixtureRequest):
    text = write_report(chain[1:2], None).report.read_text()
    request.getfixturevalue("without_drawing")
    assert "resumed" in text
    assert "resumed" not in write_report(chain[:1], None).report.read_text()


def test_without_the_run_before_the_report_is_of_what_is_there(chain: list[RunPaths]):
    chain[1].manifest.unlink()
    (examined,) = examine_runs(chain[2:])
    assert examined.curves.joints == ()
    assert len(examined.curves.episodes) == len(examined.run.episodes)
    assert any("day2 is not there any more" in warning for warning in examined.warnings)


@pytest.mark.usefixtures("without_drawing")
def test_metrics_and_the_document_begin_with_the_first_run(chain: list[RunPaths]):
    (examined,) = examine_runs(chain[2:])
    for frame in examined.curves.metrics.values():
        assert frame["t_s"].iloc[0] < JOINT_S
        assert frame["t_s"].is_monotonic_increasing
    (told,) = write_report(chain[2:], None).document.runs
    assert [(one.run_id, one.t_s) for one in told.resumes] == [("day1", 4.0), ("day2", 8.0)]
    assert told.curve is not None
    assert told.curve.t_s == sorted(told.curve.t_s)
    assert told.curve.env_steps[0] < 40_000 < told.curve.env_steps[-1]
    assert 0 < len(told.curve.return_mean) <= 200


def test_a_run_before_that_is_damaged_is_named_and_the_report_comes_out(chain: list[RunPaths]):
    (chain[0].trace / "episodes.jsonl").write_text("{oops\n")
    (examined,) = examine_runs(chain[2:])
    assert len(examined.curves.joints) == 1
    assert any("day1" in warning and "cannot be read" in warning for warning in examined.warnings)


@pytest.mark.parametrize("origin", ["day1", "../day2", "/", "", ".", "day2"])
def test_a_manifest_that_names_itself_or_another_place_is_not_followed(
    chain: list[RunPaths], origin: str
):
    resume(chain[0], origin)
    found, trouble = ancestors_of(chain[0].root, load_run(chain[0]).manifest)
    assert [one.run_id for one in found] == (["day2"] if origin == "day2" else [])
    assert trouble == ""


def test_a_resumed_run_without_an_episode_of_its_own_says_so(chain: list[RunPaths]):
    (chain[1].trace / "episodes.jsonl").write_text("")
    summary = json.loads(chain[1].summary.read_bytes())
    chain[1].summary.write_text(json.dumps({**summary, "return_mean": None, "reached": False}))
    (examined,) = examine_runs(chain[1:2])
    assert len(examined.curves.episodes)
    assert "since the run was resumed" in return_over_steps([examined.curves])
