"""Runs over real SSH, in a lab of four hosts."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from tests.helpers.ssh_kit import SHORT, Bench, Command
from tianji_cli.analysis.check import rebuild_counters
from tianji_cli.analysis.run import load_run
from tianji_cli.provisioning.findings import names_of
from tianji_cli.storage.run_dir import RunPaths

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
    _assert_one_timeline(bench, command, manifest)
    bench.assert_nothing_left()


def _assert_one_timeline(bench: Bench, command: Command, manifest: dict[str, Any]) -> None:
    """The lab's hosts count monotonic time from different origins, where the kernel lets them."""
    offsets = manifest["clock_offsets_s"]
    assert offsets[bench.hosts[0]] == 0.0
    assert all(error < 0.05 for error in manifest["clock_errors_s"].values())
    wall_s = command.summary["wall_s"]
    for row in (*command.rows("production"), *command.rows("resources")):
        assert -0.5 < row["t_s"] < wall_s + 5, row
    for row in command.rows("staleness"):
        assert -0.01 < row["age_mean_s"] < wall_s


def test_an_alias_of_the_ssh_config_works_through_a_jump_host(bench: Bench) -> None:
    """As plain `ssh two` would: user, key, known hosts and ProxyJump come from ~/.ssh/config."""
    one, two, *_ = bench.hosts
    directory = bench.lab.paths.directory
    home = bench.results / "home"
    (home / ".ssh").mkdir(parents=True)
    shared = f"  User root\n  IdentityFile {bench.lab.paths.key}\n"
    shared += f"  UserKnownHostsFile {directory / 'known_hosts'}\n"
    (home / ".ssh" / "config").write_text(
        f"Host gateway\n  HostName {bench.address(one)}\n{shared}"
        f"Host inner\n  HostName {bench.address(two)}\n  ProxyJump gateway\n{shared}"
    )
    inventory = bench.results / "alias.yaml"
    entry = f"{{python: {sys.executable}, address: {bench.address(two)}}}"
    inventory.write_text(f"version: 1\nhosts:\n  inner: {entry}\n")
    command = bench.tianji(
        "up", *SHORT, "-s", "stop.env_steps=2000", run="alias", inventory=inventory, home=home
    )
    assert command.wait(60) == 0, command.said
    assert command.summary["num_hosts"] == 1
    check = bench.tianji("check", str(inventory), home=home)
    assert check.wait(30) == 0, bench.out(check)
    assert f"through root@{bench.address(one)}" in " ".join(bench.out(check).split())
    bench.assert_nothing_left()


def test_check_lists_every_probe_and_says_the_fix_for_a_host_without_python(bench: Bench) -> None:
    inventory = bench.results / "one-without.yaml"
    text = bench.lab.inventory.read_text()
    last = bench.hosts[-1]
    assert f"  {last}: {{" in text
    inventory.write_text(text.replace(f"  {last}: {{", f"  {last}: {{python: /no/python, "))
    command = bench.tianji("check", str(inventory), "--json")
    assert command.wait(60) == 3, command.said
    document = json.loads(bench.out(command))
    for host in bench.hosts:
        probes = {row["probe"]: row for row in document["hosts"][host]}
        assert list(probes) == list(names_of("ssh"))
        if host != last:
            assert {row["verdict"] for row in probes.values()} <= {"ok", "warning"}, probes
    broken = {row["probe"]: row for row in document["hosts"][last]}
    assert broken["python"]["verdict"] == "failed"
    assert "apt install python3." in broken["python"]["fix"]
    assert broken["cores"]["verdict"] == "skipped"


def test_check_of_a_dead_host_says_unreachable(bench: Bench) -> None:
    last = bench.hosts[-1]
    bench.lab.kill(last)
    command = bench.tianji("check", str(bench.lab.inventory), "--json")
    assert command.wait(60) == 4, command.said
    row = json.loads(bench.out(command))["hosts"][last][0]
    assert (row["probe"], row["verdict"]) == ("ssh", "failed")
    assert "ssh" in row["fix"]
