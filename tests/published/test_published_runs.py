"""A reproduction for real: trained, judged by both kinds of episodes, interrupted and resumed."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import msgspec
import pytest

from engine.trace.records import Episode
from tests.helpers.bench.published_fakes import judged_run, manifest_of
from tests.helpers.running import start_tianji
from tests.helpers.synthetic_run import write_synthetic_run
from tianji_cli.bench.campaign import Campaign
from tianji_cli.bench.published.records import PublishedFiles
from tianji_cli.bench.published.run import judge_run, last_returns
from tianji_cli.bench.study.run import Turn

SUITE = """
version: 1
kind: published
name: tiny
summary: Two ways to judge
seeds: 2
budget_s: 60
settings: {policy: local, learner.compile: "off", stop.env_steps: 4000,
           stop.return_threshold: null}
rows:
  trained:
    experiment: cartpole_ppo
    published: {mean: 500, spread: 1, runs: 3}
    source: {name: n, figure: "https://a.b", settings: "https://a.b"}
    judge: training
    episodes: 20
  evaluated:
    experiment: cartpole_ppo
    published: {mean: 500, spread: 0, runs: 1, episodes: 100}
    source: {name: n, figure: "https://a.b", settings: "https://a.b"}
    judge: evaluation
    episodes: 5
"""


@pytest.mark.processes
@pytest.mark.slow
def test_it_is_interrupted_resumed_judged_and_reported(tmp_path: Path):
    (tmp_path / "tiny.yaml").write_text(SUITE)
    words = ("bench", "tiny.yaml", "--yes", "--name", "mine", "--jobs", "2")
    first = start_tianji(tmp_path, *words)
    assert first.stderr is not None
    for line in first.stderr:
        if line.startswith("[1/4]"):
            break
    first.send_signal(signal.SIGINT)
    _, err = first.communicate(timeout=60)
    assert first.returncode == 130, err
    assert "to resume: tianji bench --resume mine" in err
    records = tmp_path / "results" / "mine" / "runs.jsonl"
    before = records.read_text().splitlines()

    second = start_tianji(tmp_path, "--json", "bench", "--resume", "mine", "--yes", "--strict")
    out, err = second.communicate(timeout=180)
    assert second.returncode == 8, "4,000 env steps do not solve it"
    lines = records.read_text().splitlines()
    assert lines[: len(before)] == before, "a finished run is not made again"
    found = json.loads(out)
    assert [(row["row"], row["verdict"]) for row in found["rows"]] == [
        ("trained", "worse"),
        ("evaluated", "worse"),
    ]
    for line in lines:
        run = json.loads(line)
        is_evaluated = run["cell"]["task"] == "evaluated"
        assert len(run["judged"]) == (5 if is_evaluated else 20)
        assert (run["evaluation"] is not None) == is_evaluated
        assert run["summary"]["stop_reason"] == "env_steps"


def test_the_last_training_episodes_judge_a_run(tmp_path: Path):
    run = write_synthetic_run(tmp_path)
    rows = [json.loads(line) for line in (run.trace / "episodes.jsonl").read_text().splitlines()]
    returns = [msgspec.convert(row, Episode).episode_return for row in rows]
    assert last_returns(run, 3) == pytest.approx(returns[-3:], abs=1e-4)
    assert len(last_returns(run, 10**9)) == len(returns)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"stop_reason": "seconds"}, "ended by seconds, not after all its env steps"),
        ({}, "only 0 episodes ended; 100 judge it"),
    ],
)
def test_a_run_that_cannot_be_judged_has_failed(
    changes: dict[str, object], words: str, tmp_path: Path
):
    manifest = manifest_of()
    files = PublishedFiles(tmp_path)
    cell = next(cell for cell in manifest.cells if cell.task == "many")
    run = judged_run(cell, 1.0)
    run = msgspec.structs.replace(run, summary=msgspec.structs.replace(run.summary, **changes))
    (files.cell(cell) / "trace").mkdir(parents=True)
    found = judge_run(Campaign(files, manifest, manifest.cells), run, Turn())
    assert found.outcome == "failed"
    assert words in found.detail
