"""Runs over real SSH, in a lab of four hosts."""

from __future__ import annotations

import json

import pytest
from ssh_kit import SHORT, Bench

from tianji_cli.analysis.check import rebuild_counters
from tianji_cli.analysis.run import load_run
from tianji_cli.run_dir import RunPaths

pytestmark = pytest.mark.lab


def test_up_trains_over_four_hosts_and_leaves_nothing(bench: Bench) -> None:
    command = bench.tianji(
        "up", *SHORT, "-s", "stop.env_steps=12000", "-s", "actors=3", "--json", run="four"
    )
    assert command.wait(120) == 0, command.said
    summary = json.loads(bench.out(command))
    assert summary == command.summary
    assert summary["status"] == "ok"
    assert summary["num_hosts"] == 4
    assert summary["env_steps_consumed"] >= 12000
    manifest = json.loads((command.run_dir / "manifest.json").read_text())
    assert sorted(manifest["hosts"]) == bench.hosts
    logs = sorted(p.relative_to(command.run_dir / "logs") for p in command.run_dir.rglob("*.log"))
    learner, *others = bench.hosts
    assert {str(path) for path in logs} == {
        f"{learner}/coordinator.log",
        f"{learner}/buffer-0.log",
        f"{learner}/learner-0.log",
        *(f"{host}/actor-{number}.log" for number, host in enumerate(others)),
    }
    assert list((command.run_dir / "checkpoints").glob("*.safetensors"))
    assert not rebuild_counters(load_run(RunPaths(command.run_dir)))
    bench.assert_nothing_left()


def test_times_of_all_hosts_are_on_one_timeline(bench: Bench) -> None:
    """The lab's hosts count monotonic time from different origins."""
    command = bench.tianji("up", *SHORT, "-s", "stop.env_steps=8000", "-s", "actors=3", run="clock")
    assert command.wait(120) == 0, command.said
    manifest = json.loads((command.run_dir / "manifest.json").read_text())
    offsets = manifest["clock_offsets_s"]
    assert offsets[bench.hosts[0]] == 0.0
    if all(abs(offsets[host]) < 1.0 for host in bench.hosts[1:]):
        pytest.skip("this kernel has no time namespaces, so all hosts share one clock")
    assert all(error < 0.05 for error in manifest["clock_errors_s"].values())
    wall_s = command.summary["wall_s"]
    for row in (*command.rows("production"), *command.rows("resources")):
        assert -0.5 < row["t_s"] < wall_s + 5, row
    for row in command.rows("staleness"):
        assert -0.01 < row["age_mean_s"] < wall_s
