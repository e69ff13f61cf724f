"""`tianji bench` as a command: what it refuses, and with which exit code."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.running import run_tianji

QUICK = ["-s", "tasks.ppo.budget_s=20", "-s", "tasks.ppo.min_s=0", "-s", "tasks.ppo.threshold=15"]


def variables(cwd: Path) -> dict[str, str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TIANJI_")}
    return {**environment, "NO_COLOR": "1", "TIANJI_PEERS": str(cwd / "no-peers")}


def ask(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What starts nothing."""
    return run_tianji(cwd, "bench", *arguments, env=variables(cwd))


def tianji(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tianji_cli.main", "bench", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        stdin=subprocess.DEVNULL,
        env=variables(cwd),
    )


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["smoke"], 2, ["standard input is not a terminal", "--yes"]),
        (["smok", "--dry-run"], 2, ["no such file", "did you mean 'smoke'?"]),
        (
            ["smoke", "--compare", "rlib", "--dry-run"],
            2,
            ["unknown system 'rlib'", "did you mean 'rllib'?"],
        ),
        (["smoke", "--compare", "rllib", "--dry-run"], 3, ["RLlib is not installed", "--install"]),
        (
            ["smoke", "--compare", "xingtian", "--dry-run"],
            3,
            ["TIANJI_XINGTIAN_PYTHON", "--skip-missing"],
        ),
        (["smoke", "--compare", "other-tianji", "--dry-run"], 3, ["--other-tianji"]),
        (["smoke", "--budget", "0", "--dry-run"], 2, ["0 is not a time"]),
        (["smoke", "--budget", "inf", "--dry-run"], 2, ["inf is not a time"]),
        (["overlap", "--budget", "nan", "--dry-run"], 2, ["nan is not a time"]),
        (["smoke", "--task", "pp", "--dry-run"], 2, ["has no task 'pp'", "'ppo'"]),
        (
            ["cartpole", "--task", "dqn", "--compare", "sample-factory", "--dry-run"],
            2,
            ["no task for sample-factory", "Sample Factory has no DQN"],
        ),
        (["smoke", "--seeds", "0"], 2, ["--seeds"]),
        (["--resume", "nothing", "--yes"], 2, ["no benchmark or study to resume", "nothing"]),
        (["--resume", "b", "--seeds", "5", "--yes"], 2, ["--seeds", "keeps its settings"]),
        (["--resume", "b", "-s", "budget_s=1", "--yes"], 2, ["-s", "keeps its settings"]),
        (["--resume", "b", "--name", "c", "--yes"], 2, ["--name", "keeps its settings"]),
        (["--resume", "b", "--task", "ppo", "--yes"], 2, ["--task", "keeps its settings"]),
        (["scaling", "a.yaml", "--hosts", "b.yaml", "--dry-run"], 2, ["a.yaml", "b.yaml", "one"]),
        (["--resume", "n" * 300, "--yes"], 2, ["no benchmark or study to resume"]),
        (["n" * 300, "--yes"], 2, ["no such file"]),
        (["--install", "xingtian"], 2, ["cannot be installed from here"]),
        (["smoke", "--name", "../up", "--dry-run"], 2, ["cannot name a directory"]),
        (["smoke", "--hosts", "lab", "--dry-run"], 2, ["--hosts", "takes no inventory"]),
        (["overlap", "--hosts", "gone.yaml", "--dry-run"], 2, ["gone.yaml", "no such file"]),
        (["overlap", "--parallel", "0", "--dry-run"], 2, ["--parallel", "auto, or 1 to"]),
        (["smoke", "--parallel", "2", "--dry-run"], 2, ["--parallel", "one cell at a time"]),
        (["overlap", "--task", "pog", "--dry-run"], 2, ["has no task 'pog'"]),
        (["scaling", "--task", "ppo", "--dry-run"], 2, ["--task", "one task"]),
        (["transport", "--task", "ppo", "--dry-run"], 2, ["--task", "sizes_bytes"]),
        (["transport", "--budget", "9", "--dry-run"], 2, ["--budget", "measure_s"]),
        (["transport", "--compare", "rllib", "--dry-run"], 2, ["--compare", "methods"]),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_written(
    tmp_path, arguments, code, words
):
    result = ask(tmp_path, *arguments)
    assert result.returncode == code, result.stderr
    for word in words:
        assert word in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("compare", [(), ("--compare", "cleanrl,single-process")])
def test_a_dry_run_says_what_would_run_and_for_how_long(tmp_path, compare):
    result = ask(tmp_path, "smoke", *compare, "--dry-run", "-v")
    assert result.returncode == 0, result.stderr
    assert "4 cells, between 80.0 s and 2 min 48 s in all" in result.stderr
    assert "ppo/single-process-seed1" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["smoke", "--name", "it"], "bench_id"),
        (["staleness", "--task", "ppo", "--name", "it"], "study_id"),
        (["transport", "-s", "methods=[tianji]", "--name", "it"], "bench_id"),
    ],
)
def test_a_dry_run_as_a_document_is_the_manifest(tmp_path, arguments, name):
    result = ask(tmp_path, *arguments, "--dry-run", "--json")
    assert result.returncode == 0, result.stderr
    manifest = json.loads(result.stdout)
    assert manifest[name] == "it"
    if "--task" in arguments:
        assert {cell["task"] for cell in manifest["cells"]} == {"ppo"}
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.processes
def test_a_real_benchmark_with_a_missing_system(tmp_path):
    """TianJi and the plain loop for real; a missing system is marked, and --strict says so."""
    result = tianji(
        tmp_path, "smoke", "--compare", "single-process,xingtian", "--skip-missing", "--strict",
        "--seeds", "1", "--name", "b", "--yes", "--json", *QUICK,
    )  # fmt: skip
    assert result.returncode == 8, result.stderr
    document = json.loads(result.stdout)
    outcomes = {summary["peer"]: summary["outcomes"] for summary in document["tasks"][0]["peers"]}
    assert outcomes == {
        "tianji": {"reached": 1},
        "single-process": {"reached": 1},
        "xingtian": {"missing": 1},
    }
    assert (tmp_path / "results" / "b" / "report.html").is_file()
    for system in ("tianji", "single-process"):
        assert_phases(
            tmp_path / "results" / "b" / "cells" / "ppo" / f"{system}-seed0" / "cell.json"
        )
    again = tianji(tmp_path, "--resume", "b", "--yes")
    assert again.returncode == 0, again.stderr
    assert "0 cells (3 of 3 done)" in again.stderr


def assert_phases(path: Path) -> None:
    """Launch, first sample, first update, threshold, stop, end: in this order."""
    cell = json.loads(path.read_text())
    figures = cell["figures"]
    moments = [figures[name] for name in ("first_sample_s", "first_update_s", "reached_s")]
    moments = [0.0, *moments, cell["stop_asked_s"], cell["ended_s"]]
    assert all(earlier < later for earlier, later in itertools.pairwise(moments)), moments


@pytest.mark.processes
def test_dqn_and_images_are_learnt_by_whom_we_bring(tmp_path):
    pytest.importorskip("minatar")
    dqn = ("budget_s=40", "min_s=0", "threshold=10")
    ppo = ("algorithm.batch_steps=256", "algorithm.minibatch_steps=256", "algorithm.num_epochs=1")
    breakout = ("budget_s=40", "min_s=0", "threshold=0", "rollout_steps=16", *ppo)
    for suite, name, settings in (("cartpole", "dqn", dqn), ("minatar", "breakout", breakout)):
        words = [word for setting in settings for word in ("-s", f"tasks.{name}.{setting}")]
        result = tianji(
            tmp_path, suite, "--task", name, "--seeds", "1", "--name", suite, "--yes", "--strict",
            "--json", *words,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        for system in ("tianji", "single-process"):
            root = tmp_path / "results" / suite / "cells" / name / f"{system}-seed0"
            assert json.loads((root / "cell.json").read_text())["figures"]["first_update_s"] > 0
