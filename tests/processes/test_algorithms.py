"""Every way of taking samples, over real processes and sockets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.helpers.paths import REPOSITORY
from tests.helpers.running import SHORT, rows
from tianji_cli.analysis.check import rebuild_counters
from tianji_cli.analysis.run import load_run
from tianji_cli.storage.run_dir import RunPaths

pytestmark = pytest.mark.processes
EXPERIMENTS = REPOSITORY / "experiments"


def run(tianji, tmp_path: Path, experiment: str, *settings: str) -> tuple[dict, Path]:
    """A short run of an experiment; its files must agree with each other."""
    command = tianji(
        *("--json", "-q", "up", "--name", "run", "-x", str(EXPERIMENTS / f"{experiment}.yaml")),
        *SHORT,
        *(word for setting in settings for word in ("-s", setting)),
    )
    code, out, err = command.end(120)
    assert code == 0, err
    directory = tmp_path / "results" / "run"
    assert rebuild_counters(load_run(RunPaths(directory))) == []
    return json.loads(out), directory


def test_prioritised_replay_with_an_evaluator(tianji, tmp_path):
    settings = ("evaluation.every_s=0.5", "stop.judge=training", "stop.env_steps=6000")
    summary, directory = run(tianji, tmp_path, "cartpole_apex", *settings)
    assert summary["status"] == "ok"
    assert summary["env_steps_consumed"] >= 6000
    assert 10 < summary["replay_ratio"] < 20
    evaluations = rows(directory, "evaluations")
    assert evaluations
    assert evaluations[0]["episodes"] == 20
    joined = {row["role"] for row in rows(directory, "events") if row["kind"] == "joined"}
    assert "evaluator-0" in joined
    last = rows(directory, "replay")[-1]
    assert last["env_steps_total"] == summary["env_steps_consumed"]
    refused = [log.read_text() for log in (directory / "logs").rglob("*.log")]
    assert not any("refused" in text for text in refused)


def test_uniform_replay(tianji, tmp_path):
    summary, _ = run(tianji, tmp_path, "cartpole_dqn")
    assert summary["status"] == "ok"
    assert summary["lag"]["max"] > summary["lag"]["min"]


def test_v_trace_without_a_bound(tianji, tmp_path):
    summary, directory = run(tianji, tmp_path, "cartpole_impala")
    assert summary["status"] == "ok"
    assert summary["env_steps_dropped"] == 0
    # The mean is a dot product with 160 weights of about 1/160, none of which float32 can hold: a
    # sum of n terms is off by up to n units of 2**-24. 160 ones already give 1 + 1.2e-7.
    rounding = 160 * 2**-24
    assert all(row["metrics"]["rho_mean"] <= 1 + rounding for row in rows(directory, "consumption"))


def test_continuous_actions(tianji, tmp_path):
    summary, _ = run(tianji, tmp_path, "pendulum_ppo")
    assert summary["status"] == "ok"
    assert summary["return_mean"] < 0
