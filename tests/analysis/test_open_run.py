"""A run in a notebook: `tianji_cli.results.open_run`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pandas as pd
import pytest

from engine.errors import ConfigError
from engine.trace.records import RECORD_TYPES, Merge, Replay, columns_of, table_of
from tests.helpers.synthetic_run import HOSTILE, write_rows, write_synthetic_run
from tianji_cli.results import Run, list_results, open_run
from tianji_cli.storage.run_dir import RESULTS_VARIABLE, RunPaths

TABLES = [table_of(record_type) for record_type in RECORD_TYPES]


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> RunPaths:
    return write_synthetic_run(tmp_path_factory.mktemp("results") / "20260131-one", num_batches=30)


@pytest.fixture(scope="module")
def run(paths: RunPaths) -> Run:
    return open_run(paths.root)


def test_it_is_found_by_path_id_prefix_and_age(paths: RunPaths, monkeypatch: pytest.MonkeyPatch):
    results = str(paths.root.parent)
    assert open_run(str(paths.root)).path == paths.root.resolve()
    assert open_run("20260131", results=results).run_id == paths.run_id
    assert open_run(results=results).run_id == paths.run_id
    monkeypatch.setenv(RESULTS_VARIABLE, results)
    assert open_run(paths.run_id).run_id == paths.run_id
    with pytest.raises(ConfigError, match="no such run"):
        open_run("2027")


def test_a_cell_of_a_study_or_benchmark_is_found(tmp_path: Path):
    write_synthetic_run(tmp_path / "lr" / "runs" / "cartpole-small-seed0", num_batches=4)
    write_synthetic_run(tmp_path / "lr" / "runs" / "cartpole-small-seed1", num_batches=4)
    write_synthetic_run(tmp_path / "b" / "cells" / "pong" / "tianji" / "run", num_batches=4)
    write_synthetic_run(tmp_path / "s" / "cells" / "two-hosts" / "run", num_batches=4)
    results = str(tmp_path)
    assert open_run("lr/cartpole-small-seed1", results=results).run_id == "cartpole-small-seed1"
    assert open_run("b/pong/tianji", results=results).path.parent.name == "tianji"
    assert open_run("s/two", results=results).path.parent.name == "two-hosts"
    with pytest.raises(ConfigError, match="several"):
        open_run("lr/cartpole", results=results)
    with pytest.raises(ConfigError, match="no such run"):
        open_run("lr/../b/pong/tianji", results=results)


def test_manifest_experiment_and_summary_are_those_of_the_files(paths: RunPaths, run: Run):
    assert run.manifest == json.loads(paths.manifest.read_text())
    assert run.experiment["env"]["id"] == "CartPole-v1"
    assert run.settings["staleness.max_lag"] == 1
    assert run.summary is not None
    assert run.summary.run_id == run.run_id
    assert run.status == "ok"


@pytest.mark.parametrize("name", TABLES)
def test_every_table_is_a_frame_whose_columns_are_explained(run: Run, name: str):
    frame, columns = run.table(name), run.columns(name)
    assert isinstance(frame, pd.DataFrame)
    assert getattr(run, name) is frame, "read once"
    assert list(columns.index) == list(frame.columns)
    assert list(columns.columns) == ["dtype", "unit", "meaning"]
    assert columns["dtype"].tolist() == [str(dtype) for dtype in frame.dtypes]
    assert columns["meaning"].str.len().gt(0).all()
    known = columns_of({table_of(kind): kind for kind in RECORD_TYPES}[name])
    for column in set(columns.index) & set(known):
        assert tuple(columns.loc[column, ["unit", "meaning"]]) == known[column]


def test_frames_hold_the_rows_in_order_of_time(paths: RunPaths, run: Run):
    lines = (paths.trace / "episodes.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert run.episodes["episode_return"].tolist() == [row["episode_return"] for row in rows]
    assert run.episodes["t_s"].is_monotonic_increasing
    assert run.consumption["metric.loss"].iloc[0] == 1.0
    assert run.columns("consumption").loc["update_s", "unit"] == "s"
    assert run.columns("episodes").loc["episode_return", "unit"] == "reward"
    assert run.columns("consumption").loc["metric.loss", "meaning"].startswith("the loss")
    assert "steps_by_lag" not in run.staleness.columns
    assert run.lag_histogram()["env_steps"].sum() == run.staleness["env_steps"].sum()


def test_a_table_that_was_never_written_has_columns_and_no_rows(run: Run):
    assert "replay" not in run.tables
    assert "episodes" in run.tables
    assert len(run.replay) == 0
    wanted = [field.name for field in msgspec.structs.fields(Replay)]
    assert list(run.replay.columns) == wanted
    assert list(run.merges.columns) == [field.name for field in msgspec.structs.fields(Merge)]


def test_the_curve_has_the_mean_of_the_window(run: Run):
    curve = run.curve(window=10)
    last = run.episodes["episode_return"].iloc[-10:]
    assert curve["return_mean"].iloc[-1] == pytest.approx(last.mean())
    assert curve["is_full"].sum() == len(curve) - 9
    assert run.curve()["is_full"].sum() == len(curve) - 99, "the window of the run"
    with pytest.raises(ConfigError):
        run.curve(window=0)


def test_there_is_no_other_table(run: Run):
    with pytest.raises(ConfigError, match="episodes"):
        run.table("episode")


def test_a_running_run_is_opened_again_for_what_has_come(tmp_path: Path):
    paths = write_synthetic_run(tmp_path / "run", num_batches=10, has_summary=False)
    with (paths.trace / "episodes.jsonl").open("ab") as file:
        file.write(b'{"table": "episodes", "t_s": 9')  # half a row
    before = open_run(paths.root)
    known = len(before.episodes)
    assert (before.summary, before.status) == (None, "unfinished")
    (paths.trace / "episodes.jsonl").write_bytes(
        (paths.trace / "episodes.jsonl").read_bytes().rpartition(b"\n")[0] + b"\n"
    )
    row = msgspec.json.decode((paths.trace / "episodes.jsonl").read_bytes().splitlines()[-1])
    write_rows(paths.trace, [msgspec.convert(row, RECORD_TYPES[0])])
    assert len(before.episodes) == known, "a frame does not change while it is used"
    assert len(open_run(paths.root).episodes) == known + 1


def test_it_looks_well_in_a_notebook_and_can_do_no_harm_there(tmp_path: Path):
    paths = write_synthetic_run(tmp_path / "run", num_batches=4, has_summary=False)
    manifest = json.loads(paths.manifest.read_text())
    manifest["experiment"]["env"]["id"] = HOSTILE
    paths.manifest.write_text(json.dumps(manifest))
    shown = open_run(paths.root)._repr_html_()
    assert shown.startswith("<table>")
    assert "<script>" not in shown
    assert "unfinished" in shown
    assert repr(open_run(paths.root)) == f"Run('{paths.root.resolve()}')"


def test_all_runs_are_a_frame(paths: RunPaths, tmp_path: Path):
    frame = list_results(str(paths.root.parent))
    assert frame["run_id"].tolist() == [paths.run_id]
    assert frame["algorithm"].tolist() == ["ppo"]
    assert list(list_results(str(tmp_path)).columns) == list(frame.columns), "of none, too"


def test_pandas_is_read_when_it_is_used(paths: RunPaths):
    probe = (
        "import sys\nfrom tianji_cli.results import open_run\n"
        f"run = open_run({str(paths.root)!r})\nrun.summary, run.manifest, run._repr_html_()\n"
        "assert not {'pandas', 'torch', 'matplotlib'} & sys.modules.keys()\n"
        "run.episodes\nassert 'pandas' in sys.modules and 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
