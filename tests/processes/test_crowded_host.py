"""Dozens of roles on one host, and hundreds, with tiny networks and slow environments: they start,
all of them collect, they train, and they end. `pytest -s` shows what that costs."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.helpers.running import EAGER, Command, rows, wait_for

PATIENCE_S = 240.0
MEASURED_S = 20.0
FEW, FEW_MEASURED_S = 50, 3.0


def up(tianji: Callable[..., Command], actors: int, *more: str) -> Command:
    """Each env step takes half a second, so that a thousand actors leave two cores some time."""
    slow = (
        *("-s", "env.num_envs=1"),
        *("-s", "env.step_latency_ms=500"),
        *("-s", "algorithm.rollout_steps=4"),
        *("-s", f"algorithm.batch_steps={4 * max(1, actors // 4)}"),
        *("-s", f"algorithm.minibatch_steps={4 * max(1, actors // 4)}"),
        *("-s", "algorithm.num_epochs=1"),
        *("-s", "staleness.max_lag=4"),
        *("-s", "network.hidden_sizes=[8]"),
        *("-s", "stop.env_steps=null", "-s", "stop.return_threshold=null"),
        *("-s", "stop.seconds=1000"),
    )
    return tianji("up", "--name", "run", *EAGER, "-s", f"actors={actors}", *slow, *more)


def cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def own_bytes(process: psutil.Process) -> int:
    """Memory of a process, its part of what it shares with its siblings counted once for all."""
    return int(process.memory_full_info().pss)


@pytest.mark.parametrize(
    "actors",
    [FEW, *(pytest.param(n, marks=pytest.mark.slow) for n in (250, 500, 1000))],
)
def test_they_start_train_and_end(tianji, tmp_path: Path, actors: int):
    run = tmp_path / "results" / "run"
    began_s = time.monotonic()
    command = up(tianji, actors)

    def is_started() -> bool:
        assert command.process.poll() is None, command.end()
        return any(row["kind"] == "started" for row in rows(run, "events"))

    wait_for(is_started, PATIENCE_S, "all have joined")
    start_s = time.monotonic() - began_s
    wait_for(
        lambda: len({row["actor"] for row in rows(run, "production")}) == actors,
        PATIENCE_S,
        "every actor collects",
    )
    coordinator = command.role("coordinator")
    buffer, supervisor = command.role("buffer-0"), command.role("supervisor")
    busy = {process: cpu_s(process) for process in (coordinator, buffer, supervisor)}
    least_s = FEW_MEASURED_S if actors == FEW else MEASURED_S
    num_updates, measured_s = len(rows(run, "consumption")), time.monotonic()
    wait_for(lambda: len(rows(run, "consumption")) > num_updates + 3, PATIENCE_S, "it trains")
    wait_for(lambda: time.monotonic() > measured_s + least_s, least_s + 5, "a while")
    measured_s = time.monotonic() - measured_s
    cores = [(cpu_s(p) - before) / measured_s for p, before in busy.items()]
    some = [command.role(f"actor-{number}") for number in range(0, actors, actors // 10)]
    figures = {
        "actors": actors,
        "start_s": round(start_s, 1),
        "actor_mib": round(sum(map(own_bytes, some)) / len(some) / 2**20, 1),
        "actor_descriptors": max(process.num_fds() for process in some),
        "coordinator_descriptors": coordinator.num_fds(),
        "buffer_descriptors": buffer.num_fds(),
        "cores_of_coordinator_buffer_supervisor": [round(share, 3) for share in cores],
        "state_bytes": (run / "state" / "localhost.json").stat().st_size,
    }
    ended_s = time.monotonic()
    command.process.send_signal(signal.SIGINT)
    code, _, err = command.end(PATIENCE_S)
    figures["end_s"] = round(time.monotonic() - ended_s, 1)
    print(json.dumps(figures), os.getloadavg())
    summary = json.loads((run / "summary.json").read_text())
    assert (code, summary["status"], summary["restarts"]) == (130, "interrupted", 0), err
    counts = [summary[f"env_steps_{kind}"] for kind in ("consumed", "dropped", "in_flight")]
    assert summary["env_steps_collected"] == sum(counts)
    assert not command.alive()
    assert not [row for row in rows(run, "events") if row["kind"] in ("host-lost", "stuck")]
