"""The tasks of the study `spaces`: hybrid actions, masks and memory, as their files are."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.paths import REPOSITORY
from tests.helpers.running import summary_of_up

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
    stop = ("-s", "stop.env_steps=12000", "-s", "stop.return_threshold=null")
    summary = summary_of_up(tmp_path, "-x", str(path), "--policy", "local", *stop)
    assert int(str(summary["env_steps_consumed"])) >= 12_000
    clearly_learnt = {"aim_ppo": 0.0, "one_in_ten_ppo": 15.0, "tmaze_ppo_gru": 0.0}[path.stem]
    assert float(str(summary["return_mean"])) > clearly_learnt
