"""A run on this machine that goes on without the command that started it. No SSH, no lab."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from engine.host.process_identity import RUN_VARIABLE, ProcessId, mark
from engine.supervision.host_state import HostState, state_path, write_state
from engine.supervision.run_inspector import stop
from tests.helpers.running import EASY
from tests.helpers.ssh_kit import REPOSITORY
from tianji_cli.commands.down import words_of_answer
from tianji_cli.config.inventory import Host
from tianji_cli.runs.detached import HostAnswer
from tianji_cli.storage.deployment import HostPart

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
    endless = (*EASY, "-s", "stop.env_steps=null", "-s", "stop.seconds=200")
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


def test_who_does_not_end_in_time_is_killed_and_that_is_said(tmp_path: Path) -> None:
    deaf = "import signal, time; signal.signal(15, 1); held = bytearray(300 << 20)"
    deaf += "; print(flush=True); time.sleep(60)"
    env = {**os.environ, RUN_VARIABLE: mark("r", "here", str(tmp_path))}
    command = [sys.executable, "-c", deaf]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=env) as process:
        assert process.stdout is not None
        process.stdout.readline()
        supervisor = ProcessId.of(process.pid)
        assert supervisor is not None
        path = state_path(tmp_path, "here")
        write_state(path, HostState(run_id="r", host="here", supervisor=supervisor))
        findings = stop(tmp_path, "r", "here", 0.2)
        assert (findings.was_forced, findings.is_supervised) == (True, False)
        assert not stop(tmp_path, "r", "here", 0.2).was_forced, "it is gone already"
    host = Host(name="here", connection="local", address="", ports=None)
    part = HostPart(host=host, python="", source="", run_dir=str(tmp_path))
    words = words_of_answer(HostAnswer(part, findings))
    assert words == "nothing is left; it did not end within 25 s, so it was killed"


def test_what_is_to_be_typed_next_finds_a_run_elsewhere(tmp_path: Path) -> None:
    place = ("--results", "my runs")
    short = ("-s", "stop.env_steps=800", "-s", "stop.return_threshold=null")
    up = tianji(tmp_path, "up", "--policy", "local", "--name", "x", *short, *place)
    assert "tianji report x --results 'my runs'" in up.stderr
    again = tianji(tmp_path, "up", "--name", "x", *place)
    assert "tianji status x --results 'my runs' says" in again.stderr
    assert "tianji runs --results 'my runs' lists" in tianji(tmp_path, "down", "y", *place).stderr
