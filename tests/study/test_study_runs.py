"""A small study for real: runs over processes, interrupted and resumed."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.helpers.running import start_tianji

pytestmark = pytest.mark.processes

STUDY = """
version: 1
kind: study
name: tiny
summary: Two policies
seeds: 1
budget_s: 30
tasks:
  t:
    experiment: cartpole_ppo
    settings: {stop.env_steps: 4000, stop.return_threshold: 15, learner.compile: "off"}
    baseline: local
    variants:
      local: {policy: local}
      tianji: {policy: tianji}
      unreached: {stop.return_threshold: 500}
"""


@pytest.mark.slow
def test_a_study_is_interrupted_resumed_and_reported(tmp_path: Path):
    (tmp_path / "tiny.yaml").write_text(STUDY)
    first = start_tianji(tmp_path, "bench", "tiny.yaml", "--yes", "--name", "mine")
    assert first.stderr is not None
    for line in first.stderr:
        if line.startswith("[1/3]"):
            break
    first.send_signal(signal.SIGINT)
    out, err = first.communicate(timeout=60)
    assert first.returncode == 130, err
    assert "to resume: tianji bench --resume mine" in err
    records = tmp_path / "results" / "mine" / "runs.jsonl"
    (before,) = records.read_text().splitlines()

    second = start_tianji(tmp_path, "--json", "bench", "--resume", "mine", "--yes", "--strict")
    out, err = second.communicate(timeout=120)
    assert second.returncode == 8, "one run cannot reach its threshold"
    lines = records.read_text().splitlines()
    assert lines[0] == before, "a finished run is not made again"
    runs = [json.loads(line) for line in lines]
    assert {run["cell"]["variant"]: run["outcome"] for run in runs} == {
        "local": "reached",
        "tianji": "reached",
        "unreached": "censored",
    }
    for run in runs:
        assert run["disagreements"] == 0
        assert run["summary"]["policy"] == run["manifest"]["experiment"]["policy"]
        assert run["curve"]["return_mean"]
    (task,) = json.loads(out)["tasks"]
    ratios = {item["variant"]: item["ratios"] for item in task["variants"]}
    assert "steps_to_threshold" in ratios["tianji"]
    assert "steps_to_threshold" not in ratios["unreached"]
    assert (tmp_path / "results" / "mine" / "report.html").is_file()


def test_a_study_refuses_what_it_cannot_do(tmp_path: Path):
    (tmp_path / "tiny.yaml").write_text(STUDY.replace("baseline: local", "baseline: loca"))
    command = start_tianji(tmp_path, "bench", "tiny.yaml", "--yes")
    _, err = command.communicate(timeout=60)
    assert command.returncode == 2
    assert "the baseline 'loca' is no variant" in err
    assert "tiny.yaml:12" in err
    assert not (tmp_path / "results").exists()


def test_a_study_takes_no_other_systems(tmp_path: Path):
    command = start_tianji(tmp_path, "bench", "staleness", "--dry-run", "--compare", "rllib")
    _, err = command.communicate(timeout=60)
    assert command.returncode == 2
    assert "a study compares settings of TianJi, not systems" in err
