"""A run on this machine that goes on without the command that started it. No SSH, no lab."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from ssh_kit import REPOSITORY

pytestmark = pytest.mark.processes


def tianji(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tianji_cli.main", *words],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_up_detached_status_logs_down(tmp_path: Path) -> None:
    endless = ("-s", "stop.env_steps=null", "-s", "stop.seconds=200")
    endless += ("-s", "stop.return_threshold=null")
    up = tianji(tmp_path, "up", "-d", "--name", "mine", *endless)
    try:
        assert up.returncode == 0, up.stderr
        status = tianji(tmp_path, "status", "mine", "--json")
        document = json.loads(status.stdout)
        assert document["phase"] == "running"
        pids = [role["pid"] for role in document["roles"].values()]
        assert len(pids) == 5
        assert all(psutil.pid_exists(pid) for pid in pids)
        logs = tianji(tmp_path, "logs", "mine", "learner", "-n", "1")
        assert logs.stdout.startswith("learner-0@localhost | ")
        logs = tianji(tmp_path, "logs", "mine", "learner", "-n", "1", "--json")
        (log,) = json.loads(logs.stdout)["logs"]
        assert (log["role"], log["host"], len(log["lines"])) == ("learner-0", "localhost", 1)
        assert tianji(tmp_path, "logs", "mine", "-f", "--json").returncode == 2
    finally:
        down = tianji(tmp_path, "down", "mine")
    assert down.returncode == 0, down.stderr
    assert not any(psutil.pid_exists(pid) for pid in pids)
    summary = json.loads((tmp_path / "results" / "mine" / "summary.json").read_text())
    assert (summary["status"], summary["stop_reason"]) == ("interrupted", "interrupted")
    assert json.loads(tianji(tmp_path, "status", "mine", "--json").stdout)["phase"] == "ended"


def test_an_inline_run_has_nothing_to_look_at(tmp_path: Path) -> None:
    short = ("-s", "stop.env_steps=800", "-s", "stop.return_threshold=null")
    assert tianji(tmp_path, "up", "--policy", "local", "--name", "x", *short).returncode == 0
    status = tianji(tmp_path, "status", "x")
    assert status.returncode == 2
    assert "no processes of its own" in status.stderr
