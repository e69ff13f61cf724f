"""MLflow's own client finds what the trace says, in SQLite."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.synthetic_run import write_synthetic_run
from tests.helpers.tracked import Points, mlflow_points, traced_points, track_whole
from tianji_cli.storage.run_dir import RunPaths

pytest.importorskip("mlflow", reason="the extra `mlflow` is not installed")
pytest.importorskip("sqlalchemy", reason="the extra `mlflow` is not installed")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
"""It makes all tables of its database; its libraries warn of each other."""


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunPaths:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    return write_synthetic_run(tmp_path / "results" / "run")


def once(points: Points) -> dict[str, list[tuple[int, float]]]:
    """Without repetitions, which MLflow does not keep if the time is the same, too."""
    return {name: sorted(set(values)) for name, values in points.items()}


def test_the_database_equals_the_trace_and_tracked_again_is_not_doubled(paths: RunPaths, tmp_path):
    from mlflow.tracking import MlflowClient

    track_whole(paths, "mlflow")
    first = mlflow_points(paths.root)
    state = track_whole(paths, "mlflow")
    found = mlflow_points(paths.root)
    assert found == first
    traced = traced_points(paths.root)
    assert {name: once(found)[name] for name in traced} == once(traced)
    assert state.state == "complete"
    assert state.rows["episodes"] == 480
    client = MlflowClient(f"sqlite:///{tmp_path}/results/mlflow.db")
    experiment = client.search_experiments(filter_string="name != 'Default'")[0]
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["algorithm.name"] == "ppo"
    assert run.data.tags["git_commit"] == "0123456789abcdef0123456789abcdef01234567"
    assert run.data.tags["seed"] == "7"
    assert run.data.tags["stop_reason"] == "return_threshold"
    assert run.data.metrics["summary/return_mean"] == 494.77
    assert sorted(p.name for p in tmp_path.iterdir()) == ["results"], "nothing else is left here"


def test_after_a_tracker_was_killed_the_next_one_sends_what_is_missing(paths, monkeypatch):
    """Killed after a batch had been sent, and before that was written down."""
    from tianji_cli.tracking import mlflow_sink

    with monkeypatch.context() as patched:
        patched.setattr(mlflow_sink.MlflowSink, "flush", killed)
        with pytest.raises(KeyboardInterrupt):
            track_whole(paths, "mlflow")
    assert len(mlflow_points(paths.root)["charts/episodic_return"]) > 400
    track_whole(paths, "mlflow")
    found, traced = mlflow_points(paths.root), traced_points(paths.root)
    assert {name: once(found)[name] for name in traced} == once(traced)
    assert len(found["charts/updates"]) == 120


def killed(_: object) -> None:
    raise KeyboardInterrupt
