"""What `tianji report` draws of runs whose samples come from a replay store."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pandas as pd
import pytest
from msgspec.structs import replace

from engine.trace.reader import read_summary, read_table
from engine.trace.records import Consumption, Replay
from tests.helpers.synthetic_run import write_rows, write_synthetic_run
from tianji_cli.analysis.curves import (
    MAX_RATIO_POINTS,
    RunCurves,
    curves_of,
    replay_ratio_over_time,
)
from tianji_cli.analysis.rebuild import rebuild_summary
from tianji_cli.analysis.run import load_run
from tianji_cli.commands.report import write_report
from tianji_cli.render.run import titles
from tianji_cli.storage.run_dir import RunPaths


def replayed(root: Path) -> RunPaths:
    """The synthetic run as if a replay store stood between actors and learner."""
    paths = write_synthetic_run(root)
    rows = read_table(paths.trace, Consumption)
    write_rows(
        paths.trace,
        [
            Replay(
                t_s=row.t_s,
                buffer=0,
                env_steps=row.env_steps,
                env_steps_total=row.env_steps_total,
                samples=row.samples_trained,
                samples_total=row.samples_trained_total,
                size_env_steps=row.env_steps_total,
                replay_ratio=row.samples_trained_total / row.env_steps_total,
                sample_age_mean_s=1.0,
                sample_age_max_s=2.0,
            )
            for row in rows
        ],
    )
    return paths


def amend(paths: RunPaths, **figures: float) -> None:
    """Writes other figures into a run's summary."""
    summary = read_summary(paths.summary)
    assert summary is not None
    paths.summary.write_bytes(msgspec.json.encode(replace(summary, **figures)))


def curves(paths: RunPaths) -> RunCurves:
    run = load_run(paths)
    return curves_of(run, rebuild_summary(run), paths.run_id)


def names(figures: tuple[Path, ...]) -> set[str]:
    return {path.stem for path in figures}


@pytest.mark.usefixtures("without_drawing")
def test_a_replay_run_shows_ratio_and_sample_age_and_no_rollout_age(tmp_path: Path):
    result = write_report([replayed(tmp_path / "run")], None)
    assert {"replay_ratio", "sample_age"} <= names(result.figures)
    assert "rollout_age" not in names(result.figures)
    text = result.report.read_text(encoding="utf-8")
    assert "A replayed sample is 35 ms old on average when it is trained on" in text
    assert "rollout age" not in text


@pytest.mark.usefixtures("without_drawing")
def test_a_queue_run_shows_neither(tmp_path: Path):
    result = write_report([write_synthetic_run(tmp_path / "run")], None)
    assert "rollout_age" in names(result.figures)
    assert not {"replay_ratio", "sample_age"} & names(result.figures)


def test_runs_of_both_kinds_share_a_report(tmp_path: Path):
    both = [replayed(tmp_path / "replay"), write_synthetic_run(tmp_path / "queue")]
    result = write_report(both, None)
    assert {"replay_ratio", "sample_age", "rollout_age"} <= names(result.figures)


@pytest.mark.usefixtures("without_drawing")
def test_figures_that_only_some_runs_have_are_dashes_in_the_others(tmp_path: Path):
    first, second = (write_synthetic_run(tmp_path / name) for name in ("first", "second"))
    amend(first, replay_ratio=3.25)
    amend(second, evaluation_return=417.5)
    text = write_report([first, second], None).report.read_text(encoding="utf-8")
    assert '<th scope="row">Replay ratio</th><td>3.25</td><td>–</td>' in text
    evaluated = "417.5 (training episodes decide, not this)"
    assert f'<th scope="row">Evaluation</th><td>–</td><td>{evaluated}</td>' in text


@pytest.mark.usefixtures("without_drawing")
def test_a_figure_that_no_run_has_is_left_out(tmp_path: Path):
    runs = [write_synthetic_run(tmp_path / name) for name in ("first", "second")]
    text = write_report(runs, None).report.read_text(encoding="utf-8")
    assert ">Replay ratio<" not in text
    assert ">Evaluation<" not in text


def test_the_ratio_counts_what_was_collected_by_then():
    production = pd.DataFrame({"t_s": [1.0, 2.0, 4.0], "env_steps": [100, 100, 200]})
    consumption = pd.DataFrame({"t_s": [0.5, 2.0, 5.0], "samples_trained": [0, 400, 800]})
    found = replay_ratio_over_time(production, consumption)
    assert found["t_s"].tolist() == [0.5, 2.0, 5.0]
    assert found["replay_ratio"].tolist() == [0.0, 2.0, 3.0]


def test_a_long_run_keeps_few_points_and_its_last():
    count = 10 * MAX_RATIO_POINTS
    times = [float(n) for n in range(count)]
    production = pd.DataFrame({"t_s": times, "env_steps": [1] * count})
    consumption = pd.DataFrame({"t_s": times, "samples_trained": [4] * count})
    found = replay_ratio_over_time(production, consumption)
    assert len(found) == MAX_RATIO_POINTS
    assert found["t_s"].iloc[-1] == times[-1]
    assert found["replay_ratio"].iloc[-1] == pytest.approx(4)


def test_titles_speak_of_what_was_asked_for(tmp_path: Path):
    run = curves(replayed(tmp_path / "run"))
    assert run.is_replay
    assert titles.replay_ratio([run]) == "Each env step is trained on 4 times"
    told = RunCurves(**{**vars(run), "wanted_replay_ratio": 8.0})
    assert titles.replay_ratio([told]) == "Each env step is trained on 4 times; 8 were asked for"
    assert titles.sample_age([run, run]).startswith("Mean age of a replayed sample")
