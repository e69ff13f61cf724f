"""`tianji up` for real: processes, sockets, files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.trace.checkpoint_file import verify
from tests.helpers.running import SHORT, SHORT_ENV_STEPS, rows

pytestmark = pytest.mark.processes


@pytest.mark.cold
def test_a_run_over_processes_agrees_with_its_files_and_its_report(tianji, tmp_path):
    """One JSON document, a process for every role, manifest, logs, a checkpoint, and a report."""
    code, out, err = tianji("--json", "up", "--name", "run", "--seed", "7", *SHORT).end(60)
    assert code == 0, err
    summary = json.loads(out)
    run = tmp_path / "results" / "run"
    assert summary == json.loads((run / "summary.json").read_text())
    assert summary["status"] == "ok"
    assert summary["num_actors"] == 2
    assert summary["env_steps_consumed"] >= SHORT_ENV_STEPS
    check_books(summary, run)
    check_roles(run)
    check_files(run)
    code, out, err = tianji("--json", "report", "run").end(60)
    assert code == 0, err
    (report,) = json.loads(out)["runs"]
    assert report["agrees"], report["disagreements"]
    assert (run / "report.html").is_file()
    assert (run / "plots").is_dir()


def check_roles(run: Path) -> None:
    """Every role is a process of its own."""
    joined = [row for row in rows(run, "events") if row["kind"] == "joined"]
    assert {row["role"] for row in joined} == {"actor-0", "actor-1", "buffer-0", "learner-0"}
    assert len({row["detail"] for row in joined}) == 4
    assert len({row["actor"] for row in rows(run, "production")}) == 2


def check_files(run: Path) -> None:
    """It has left a manifest, the logs of all and a checkpoint."""
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["argv"][:2] == ["tianji", "--json"]
    assert manifest["experiment"]["seed"] == 7
    assert manifest["seeds"] == [7]
    assert manifest["hosts"]["localhost"]["num_cores"] >= 1
    assert {log.stem for log in (run / "logs" / "localhost").iterdir()} == {
        "coordinator",
        "actor-0",
        "actor-1",
        "buffer-0",
        "learner-0",
    }
    (info,) = run.glob("checkpoints/*.json")
    assert verify(info).counters.env_steps_consumed >= SHORT_ENV_STEPS


def test_the_debug_twin_trains_inside_the_command(tianji, tmp_path):
    command = tianji("--json", "up", "--policy", "local", "--name", "run", *SHORT)
    code, out, err = command.end(60)
    assert code == 0, err
    summary = json.loads(out)
    assert summary["policy"] == "local"
    check_books(summary, tmp_path / "results" / "run")
    (pid,) = {
        row["detail"]
        for row in rows(tmp_path / "results" / "run", "events")
        if row["kind"] == "joined"
    }
    assert f"process {command.process.pid}," in str(pid)


def test_ports_in_the_inventory_mean_encrypted_tcp(tianji, tmp_path):
    inventory = tmp_path / "tcp.yaml"
    inventory.write_text("version: 1\nhosts:\n  here: {connection: local, ports: 40000-40999}\n")
    code, out, err = tianji("--json", "up", str(inventory), "--name", "run", *SHORT).end(60)
    assert code == 0, err
    check_books(json.loads(out), tmp_path / "results" / "run")
    files = [path for path in (tmp_path / "results").rglob("*") if path.is_file()]
    assert not [path for path in files if b"secret" in path.read_bytes()]


def check_books(summary, run) -> None:
    """The ledger balances at every row, and the tables add up to the summary to the sample."""
    collected, consumed, dropped, in_flight = (
        summary[f"env_steps_{name}"] for name in ("collected", "consumed", "dropped", "in_flight")
    )
    assert collected == consumed + dropped + in_flight
    assert sum(row["env_steps"] for row in rows(run, "production")) == collected
    assert sum(row["env_steps"] for row in rows(run, "consumption")) == consumed
    trained = sum(row["samples_trained"] for row in rows(run, "consumption"))
    assert trained == summary["samples_trained"]
    ledger = rows(run, "ledger")
    assert ledger
    for row in ledger:
        assert row["collected"] == row["consumed"] + row["dropped"] + row["in_flight"]
    staleness = rows(run, "staleness")
    assert staleness
    assert max(row["lag_max"] for row in staleness) == summary["lag"]["max"] <= 1
