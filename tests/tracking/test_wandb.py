"""An offline run of Weights & Biases holds what the trace says."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.helpers.synthetic_run import write_synthetic_run
from tests.helpers.tracked import traced_points, track_whole, wandb_points
from tests.helpers.wandb_file import config, history, summary
from tianji_cli.storage.run_dir import RunPaths

pytest.importorskip("wandb", reason="the extra `wandb` is not installed")
KEY = "fedcba98fedcba98fedcba98fedcba98fedcba98"


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunPaths:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("HOME", str(tmp_path))
    return write_synthetic_run(tmp_path / "results" / "run")


def written(paths: RunPaths) -> Path:
    (path,) = (paths.tracking / "wandb").glob("offline-run-*/*.wandb")
    return path


def test_the_offline_run_equals_the_trace_and_tracked_again_is_not_doubled(paths: RunPaths):
    state = track_whole(paths, "wandb")
    track_whole(paths, "wandb")
    assert wandb_points(paths.root).items() >= traced_points(paths.root).items()
    assert state.state == "complete"
    assert state.hint.startswith("wandb sync ")
    settings = config(written(paths))
    assert settings["algorithm.name"] == "ppo"
    assert settings["stop.return_threshold"] == 450
    assert settings["run.git_commit"] == "0123456789abcdef0123456789abcdef01234567"
    assert settings["run.seed"] == "7"
    last = summary(written(paths))
    assert last["summary/return_mean"] == pytest.approx(494.77)
    assert last["summary/status"] == "ok"
    rows = history(written(paths))
    assert rows[0]["time_s"] == pytest.approx(0.04)
    assert rows[0]["_timestamp"] == pytest.approx(1769903999.04)


def test_the_key_is_in_no_file(paths: RunPaths):
    track_whole(paths, "wandb")
    files = [path for path in paths.root.rglob("*") if path.is_file()]
    assert len(files) > 12
    assert [path.name for path in files if KEY.encode() in path.read_bytes()] == []


def test_a_run_that_goes_on_there_gets_only_what_is_missing(paths, monkeypatch):
    """Stands for W&B's server, which cannot be reached here: it tells the last values."""
    from tianji_cli.tracking import wandb_sink

    monkeypatch.setattr(wandb_sink, "_is_offline", lambda: False)
    given: dict[str, Any] = {}
    logged: list[dict[str, float]] = []
    there: dict[str, object] = {"trace/episodes": 470, "charts/episodic_return": 1.0}

    def init(**arguments: object) -> SimpleNamespace:
        given.update(arguments)
        return SimpleNamespace(
            define_metric=lambda *_, **__: None,
            dir=str(paths.root / "x" / "files"),
            finish=lambda exit_code: given.update(code=exit_code),
            log=logged.append,
            summary=there,
            url="https://wandb.example/me/tianji/runs/x",
        )

    monkeypatch.setattr(wandb_sink.wandb, "init", init)
    state = track_whole(paths, "wandb")
    assert given["resume"] == "allow"
    assert given["code"] == 0
    assert sum("trace/episodes" in row for row in logged) == 10
    assert sum("trace/consumption" in row for row in logged) == 120
    assert state.where == "https://wandb.example/me/tianji/runs/x"
    assert there["summary/status"] == "ok"
