"""Results of an earlier release are read, and gone on from, by this one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

pytestmark = pytest.mark.processes
RECORDED = Path(__file__).parents[1] / "recorded" / "finished"
"""PPO on CartPole, 3,229 env steps, its last checkpoint at 3,064, from before modules and
classes were renamed."""


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    run = tmp_path / "results" / "finished"
    shutil.copytree(RECORDED, run)
    return run


def test_a_former_run_is_listed_shown_and_reported(tianji, finished):
    code, out, err = tianji("runs", "--json").end(60)
    assert code == 0, err
    (listed,) = json.loads(out)["runs"]
    assert (listed["run_id"], listed["status"], listed["env_steps_collected"]) == (
        "finished",
        "ok",
        3229,
    )
    code, out, err = tianji("report", "finished").end(60)
    assert code == 0, err
    assert "rebuilt from traces: agrees" in out
    assert (finished / "report.html").stat().st_size > 10_000
    code, out, err = tianji("logs", "finished").end(60)
    assert code == 0, err
    assert "learner-0@localhost | learner-0 is process 497" in out
    code, out, err = tianji("status", "finished").end(60)
    assert code == 0, err
    assert "run finished: ended" in out


def test_a_former_run_is_resumed_with_its_counters(tianji, finished):
    settings = ("-s", "stop.env_steps=5000", "-s", "learner.compile=off")
    command = ("up", "--resume", "finished", "--trust", "--name", "more", "--json", *settings)
    code, out, err = tianji(*command).end(60)
    assert code == 0, err
    summary = json.loads(out)
    assert summary["env_steps_collected"] >= 5000
    assert summary["weights_version"] > 8, "its versions go on from the checkpoint's"
    manifest = json.loads((finished.parent / "more" / "manifest.json").read_text())
    assert manifest["resumed_from"]["counters"]["env_steps_collected"] == 3064
    assert manifest["resumed_from"]["updates"] == 128
