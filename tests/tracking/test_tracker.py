"""Trackers from the command's side, with a stand-in for their process."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

import pytest

from engine.host.process_identity import send_signal
from tests.helpers.running import wait_for
from tests.helpers.synthetic_run import write_synthetic_run
from tianji_cli.storage.run_dir import RunPaths
from tianji_cli.tracking import tracker as module
from tianji_cli.tracking import trackers as trackers_module
from tianji_cli.tracking.state import TrackerState, read_state, write_state
from tianji_cli.tracking.trackers import Trackers

KEY = "fedcba98fedcba98"
WAITS = "import sys; sys.stdin.read()"
IS_STUCK = "import time; print('ready', flush=True); time.sleep(600)"
FAILS = "import sys; print('error: the server refused'); sys.exit(1)"
LEAVES = """
import subprocess, sys
subprocess.Popen(["sleep", "600"], start_new_session=True, stdout=subprocess.DEVNULL)
sys.stdin.read()
"""


@pytest.fixture
def paths(tmp_path: Path) -> RunPaths:
    return write_synthetic_run(tmp_path / "results" / "run")


class Scene:
    """Trackers of one run whose processes run a script.

    Attributes:
        said: What the user was told.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, paths: RunPaths, *command: str) -> None:
        monkeypatch.setattr(module, "tethered", lambda *_: list(command))
        self.paths = paths
        self.said: list[str] = []
        self.trackers = Trackers(["wandb"], self.said.append)
        self.trackers.start(paths)

    @property
    def log(self) -> str:
        return (self.paths.tracking / "wandb" / "tracker.log").read_text()

    def await_end(self) -> None:
        (tracker,) = self.trackers._trackers
        wait_for(lambda: tracker.has_ended, 30, "the tracker has ended")


def python(script: str) -> tuple[str, ...]:
    return (sys.executable, "-c", script)


def test_one_that_fails_while_the_run_goes_on_is_said_once(monkeypatch, paths):
    scene = Scene(monkeypatch, paths, *python(FAILS))
    scene.await_end()
    (news,) = scene.trackers.failures()
    assert (news.tool, news.cause) == ("wandb", "ended: the server refused")
    assert scene.trackers.failures() == []
    results = scene.trackers.finish()
    assert [(r.state.state, r.state.error) for r in results] == [
        ("failed", "ended: the server refused")
    ]
    assert scene.trackers.lines(results) == []
    assert len(scene.said) == 1
    assert "training is not affected" in scene.said[0]
    assert "tianji track run " in scene.said[0]
    assert scene.said[0].endswith(" --to wandb")


def test_one_that_fails_after_the_run_is_said_at_the_end(monkeypatch, paths):
    scene = Scene(monkeypatch, paths, *python(f"{WAITS}; sys.exit('error: no room')"))
    results = scene.trackers.finish()
    assert scene.said == []
    (line,) = scene.trackers.lines(results)
    assert "wandb ended: no room" in line


def test_a_killed_one_is_written_down_although_it_could_not(monkeypatch, paths):
    scene = Scene(monkeypatch, paths, *python(WAITS))
    (tracker,) = scene.trackers._trackers
    write_state(paths, TrackerState(tool="wandb", rows={"episodes": 7}))
    assert tracker.process_id is not None
    send_signal(tracker.process_id, signal.SIGKILL)
    scene.await_end()
    assert [news.cause for news in scene.trackers.failures()] == ["was killed by SIGKILL"]
    scene.trackers.finish()
    state = read_state(paths, "wandb")
    assert (state.state, state.error) == ("failed", "was killed by SIGKILL")
    assert state.rows == {"episodes": 7}


def test_one_that_is_not_done_in_time_is_ended(monkeypatch, paths):
    monkeypatch.setattr(trackers_module, "FINISH_S", 0.2)
    scene = Scene(monkeypatch, paths, *python(IS_STUCK))
    write_state(paths, TrackerState(tool="wandb", where="there"))
    wait_for(lambda: "ready" in scene.log, 30, "it has begun")
    (result,) = scene.trackers.finish()
    assert result.state.error == "had not passed on everything in time"


def test_one_that_has_not_reached_its_tool_gets_less_time(monkeypatch, paths):
    monkeypatch.setattr(trackers_module, "REACH_S", 0.2)
    scene = Scene(monkeypatch, paths, *python(IS_STUCK))
    wait_for(lambda: "ready" in scene.log, 30, "it has begun")
    (result,) = scene.trackers.finish()
    assert result.state.error == "had not reached where it writes to in time"


def test_the_user_can_skip_the_wait(monkeypatch, paths):
    scene = Scene(monkeypatch, paths, *python(IS_STUCK))
    begin_s = time.monotonic()
    (result,) = scene.trackers.finish(lambda: True)
    assert result.has_failed
    assert time.monotonic() - begin_s < trackers_module.FINISH_S / 2


def test_what_its_tool_has_started_ends_with_it(monkeypatch, paths):
    scene = Scene(monkeypatch, paths, *python(LEAVES))
    (tracker,) = scene.trackers._trackers
    wait_for(lambda: len(tracker._left()) == 2, 30, "it has started another process")
    scene.trackers.finish()
    assert tracker._left() == []


def test_one_that_cannot_be_started_has_failed(monkeypatch, paths):
    scene = Scene(monkeypatch, paths, "/nowhere/python")
    (news,) = scene.trackers.failures()
    assert news.cause.startswith("could not be started")
    assert len(scene.said) == 1
    assert [r.has_failed for r in scene.trackers.finish()] == [True]


def test_no_link_leads_a_tracker_out_of_its_run(monkeypatch, paths, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    paths.tracking.symlink_to(tmp_path / "elsewhere")
    scene = Scene(monkeypatch, paths, *python(WAITS))
    assert "leads out of" in scene.trackers.failures()[0].cause
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_secrets_are_not_in_the_log(monkeypatch, paths):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:my-password@mlflow.example")
    script = (
        "import os, sys; key = os.environ['WANDB_API_KEY'];"
        "print('401', key, os.environ['MLFLOW_TRACKING_URI'], flush=True);"
        "sys.exit('error: ' + key)"
    )
    scene = Scene(monkeypatch, paths, *python(script))
    scene.await_end()
    (news,) = scene.trackers.failures()
    scene.trackers.finish()
    assert news.cause == "ended: ***"
    assert scene.log.startswith("401 *** https://me:***@mlflow.example")
    kept = b"".join(path.read_bytes() for path in paths.tracking.rglob("*") if path.is_file())
    assert KEY.encode() not in kept
    assert b"my-password" not in kept
