"""Any process of a run stands still for some seconds, as one does that a debugger, a suspended
container or a busy disk holds: the run goes on, and its books balance."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest

from engine.roles.coordinator.liveness import LEASE_S
from tests.helpers.running import ENDLESS, rows, wait_for

STOPPED_S = LEASE_S - 4.0
"""Less than the lease by more than the time between two beats."""
FAST = (
    *("-s", "env.num_envs=1"),
    *("-s", "algorithm.rollout_steps=1"),
    *("-s", "algorithm.batch_steps=2"),
    *("-s", "algorithm.minibatch_steps=2"),
    *("-s", "algorithm.num_epochs=1"),
    *("-s", "staleness.max_lag=50"),
)
"""So that hundreds of updates are taken in each second, each with several reports."""
PACED = (*FAST, "-s", "env.step_latency_ms=10")
"""A hundred or two in each second: in a lease still more reports than a socket's buffer holds."""


EVERY = ("coordinator", "supervisor", "buffer-0", "learner-0", "forkserver")


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        pytest.param("coordinator", PACED, marks=pytest.mark.slow, id="coordinator"),
        pytest.param("supervisor", PACED, id="supervisor"),
        *(pytest.param(name, FAST, marks=pytest.mark.slow, id=f"{name}-fast") for name in EVERY),
    ],
)
def test_a_process_that_stands_still_for_seconds_ends_no_run(
    tianji, tmp_path: Path, name: str, settings: tuple[str, ...]
):
    command = tianji("up", "--name", "run", *ENDLESS, *settings)
    run = tmp_path / "results" / "run"
    wait_for(lambda: len(rows(run, "consumption")) > 200, 55, "training under way")
    process = command.role(name)
    process.suspend()
    time.sleep(STOPPED_S)  # this is the fault
    process.resume()
    before = len(rows(run, "consumption"))
    wait_for(lambda: len(rows(run, "consumption")) > before + 200, 55, "it goes on")
    command.process.send_signal(signal.SIGINT)
    code, _, err = command.end(60)
    summary = json.loads((run / "summary.json").read_text())
    assert (code, summary["status"]) == (130, "interrupted"), err
    assert summary["restarts"] == 0
    counts = [summary[f"env_steps_{kind}"] for kind in ("consumed", "dropped", "in_flight")]
    assert summary["env_steps_collected"] == sum(counts)
