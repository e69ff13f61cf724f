"""Kill -9 while a replay store is being written: the one before loads, and nothing half is used."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import psutil
import pytest

from engine.trace.checkpoint_file import read_info
from engine.trace.replay_file import verify_replay
from tests.helpers.running import EAGER, Command, rows, wait_for

pytestmark = [pytest.mark.processes, pytest.mark.slow]

RUN = (
    *("-x", "cartpole_dqn", *EAGER, "-s", "stop.return_threshold=null"),
    *("-s", "algorithm.min_replay_size=500", "-s", "env.step_latency_ms=5"),
    *("-s", "checkpoint.every_s=0.5", "-s", "checkpoint.replay=true", "-s", "checkpoint.keep=20"),
)
GOES_ON = ("-s", "modules=[]", "-s", "env.step_latency_ms=0")


def process_of(command: Command, who: str) -> psutil.Process:
    if who != "supervisor":
        return command.role(who)
    command.look()
    return next(
        p for p in command.alive() if any("engine.supervision" in word for word in p.cmdline())
    )


@pytest.mark.parametrize("who", ["buffer-0", "learner-0", "supervisor"])
def test_the_store_before_is_used(tianji, tmp_path: Path, who: str):
    run = tmp_path / "results/run"
    stores = run / "checkpoints/replay-0"
    command = tianji("up", "--name", "run", *RUN, "-s", "modules=[slow_saver]")
    wait_for((tmp_path / "saving").exists, 60, "the second store is half written")
    (whole,) = stores.glob("v*.json")
    assert list(stores.glob(".s*.tmp")), "it is in the middle of a file"
    kept = verify_replay(whole)
    process_of(command, who).send_signal(signal.SIGKILL)
    code, _, err = command.end(60)
    assert code == 1, err
    if who != "learner-0":  # else the buffer is alive, and may write the file to its end
        assert list(stores.glob("v*.json")) == [whole]
    newest = max(path.name for path in (run / "checkpoints").glob("v*.json"))
    assert newest > whole.name, "the weights that belong to the half store are there"

    limit = ("-s", f"stop.env_steps={kept.limiter.inserted + 3_000}")
    code, _, err = tianji("up", "--resume", "run", "--name", "more", *GOES_ON, *limit).end(60)
    assert code == 0, err
    manifest = json.loads((tmp_path / "results/more/manifest.json").read_text())
    version = manifest["resumed_from"]["version"]
    assert manifest["resumed_from"]["replays"] == {"0": version}
    assert read_info(run / f"checkpoints/v{version:010d}.json").version == version
    used = verify_replay(stores / f"v{version:010d}.json")
    if who != "learner-0":
        assert version == kept.version
        assert f"not used: {stores}" in err or "not used:" in err
    first = rows(tmp_path / "results/more", "replay")[0]
    assert first["size_env_steps"] - first["env_steps"] == used.limiter.inserted
