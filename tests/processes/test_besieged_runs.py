"""Strangers take every connection that the coordinator's port has to give, and a run trains on."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import psutil
import pytest

from tests.helpers.running import ENDLESS, rows, wait_for
from tests.helpers.strangers import Strangers

pytestmark = [pytest.mark.processes, pytest.mark.slow]

NUM_STRANGERS = 200
PATIENCE_S = 60.0


@pytest.mark.parametrize("limit", [192, 4096], ids=["more than it may open", "as many as it may"])
def test_a_run_trains_on_and_a_role_joins_among_strangers(tianji, tmp_path: Path, limit: int):
    inventory = tmp_path / "tcp.yaml"
    inventory.write_text("version: 1\nhosts:\n  here: {connection: local, ports: 40000-44999}\n")
    settings = (*ENDLESS, "-s", "restarts=3", "-s", "checkpoint.every_s=1")
    command = tianji("up", str(inventory), "--name", "run", *settings, max_descriptors=limit)
    run = tmp_path / "results" / "run"
    command.wait_for(lambda: len(rows(run, "consumption")) > 5, "it trains")
    coordinator = command.role("coordinator")
    num_open = coordinator.num_fds()
    room = coordinator.rlimit(psutil.RLIMIT_NOFILE)[0] - num_open
    (port,) = {
        connection.laddr.port
        for connection in coordinator.net_connections()
        if connection.status == psutil.CONN_LISTEN
    }

    def count(table: str, kind: str = "") -> int:
        return sum(row.get("kind", "") == kind for row in rows(run, table))

    with Strangers(("127.0.0.1", port), NUM_STRANGERS) as strangers:
        expected = num_open + min(room - 2, NUM_STRANGERS // 2)
        wait_for(lambda: coordinator.num_fds() >= expected, PATIENCE_S, "they are in")
        num_updates, num_joined = count("consumption"), count("events", "joined")
        command.role("actor-0").kill()
        command.wait_for(lambda: count("events", "joined") > num_joined, "another has joined")
        command.wait_for(lambda: count("consumption") > num_updates + 20, "it trains on")
        newest = max(int(path.stem[1:]) for path in run.glob("checkpoints/v*.json"))
        command.wait_for(
            lambda: any(int(path.stem[1:]) > newest for path in run.glob("checkpoints/v*.json")),
            "a checkpoint is written",
        )
        wait_for(lambda: strangers.num_hung_up > NUM_STRANGERS, PATIENCE_S, "they come and go")
    wait_for(lambda: coordinator.num_fds() <= num_open + 2, PATIENCE_S, "nothing of them is left")
    command.process.send_signal(signal.SIGINT)
    code, _, err = command.end(PATIENCE_S)
    summary = json.loads((run / "summary.json").read_text())
    assert (code, summary["status"], summary["restarts"]) == (130, "interrupted", 1), err
    counts = [summary[f"env_steps_{kind}"] for kind in ("consumed", "dropped", "in_flight")]
    assert summary["env_steps_collected"] == sum(counts)
    assert not [row for row in rows(run, "events") if row["kind"] in ("host-lost", "stuck", "loss")]
