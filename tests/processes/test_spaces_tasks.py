"""The tasks of the study `spaces`: hybrid actions, masks and memory, as their files are."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.paths import REPOSITORY

TASKS = sorted((REPOSITORY / "experiments" / "spaces").glob("*_ppo*.yaml"))


@pytest.mark.processes
@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, marks=() if path.stem == "one_in_ten_ppo" else pytest.mark.slow)
        for path in TASKS
    ],
    ids=[path.stem for path in TASKS],
)
def test_it_learns_without_an_invalid_action(path: Path, tmp_path: Path):
    """`OneInTen-v0` raises if a masked-out choice is made; `Aim-v0` takes no other structure."""
    command = [sys.executable, "-m", "tianji_cli.main", "--json", "-q", "up", "-x", str(path)]
    stop = ("-s", "stop.env_steps=12000", "-s", "stop.return_threshold=null")
    result = subprocess.run(
        [*command, "--policy", "local", *stop, "--results", str(tmp_path)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    summary = json.loads(result.stdout)
    assert summary["env_steps_consumed"] >= 12_000
    clearly_learnt = {"aim_ppo": 0.0, "one_in_ten_ppo": 15.0, "tmaze_ppo_gru": 0.0}[path.stem]
    assert summary["return_mean"] > clearly_learnt
