"""Compute groups over eight hosts: each has a host of its own, and outlives the others' ends."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from tests.helpers.lab_fixtures import lab_of
from tests.helpers.ssh_kit import SHORT, Bench, Command, wait_until
from tianji_cli.analysis.check import rebuild_counters
from tianji_cli.analysis.run import load_run
from tianji_cli.lab import Lab
from tianji_cli.storage.run_dir import RunPaths

pytestmark = pytest.mark.lab

EIGHT = ("-s", "groups=8", "-s", "actors=8", "-s", "env.step_latency_ms=10")
NO_END = ("-s", "stop.env_steps=null", "-s", "stop.seconds=300")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    yield from lab_of(8, tmp_path_factory.mktemp("eight") / "lab")


def merging(command: Command, groups: set[int], after_s: float = 0.0) -> bool:
    """Whether each of these groups has offered a model since."""
    rows = [row for row in command.rows("merges") if row["t_s"] > after_s]
    return {row["group"] for row in rows} >= groups


def collecting(command: Command, groups: set[int], after_s: float) -> bool:
    rows = [row for row in command.rows("production") if row["t_s"] > after_s]
    return {row["actor"] for row in rows} >= groups


def group_lost(command: Command) -> dict[str, object] | None:
    rows = (row for row in command.rows("events") if row["kind"] == "group-lost")
    return next(rows, None)


def assert_books_balance(command: Command) -> None:
    summary = command.summary
    kept = summary["env_steps_consumed"] + summary["env_steps_dropped"]
    assert summary["env_steps_collected"] == kept + summary["env_steps_in_flight"]
    assert not rebuild_counters(load_run(RunPaths(command.run_dir)))


def test_each_group_has_a_host_and_a_killed_learner_ends_only_its_own(bench: Bench) -> None:
    command = bench.tianji("up", *SHORT, *EIGHT, *NO_END, "--json", run="groups")
    wait_until(lambda: merging(command, set(range(8))), 120, "all groups merge")
    processes = json.loads((command.run_dir / "manifest.json").read_text())["processes"]
    first = bench.hosts[0]
    for group, host in enumerate(bench.hosts):
        here = {name for name, seat in processes.items() if seat["host"] == host}
        own = {f"actor-{group}", f"buffer-{group}", f"learner-{group}"}
        assert here == (own | {"coordinator", "reducer-0"} if host == first else own)

    victim = bench.hosts[5]
    pid = bench.role_pid(victim, "groups", "learner-5")
    bench.kill(victim, pid)
    killed_s = time.monotonic()
    wait_until(lambda: not bench.is_alive(victim, pid), 2, "the learner is dead")
    wait_until(lambda: group_lost(command), 10, "the coordinator reports it")
    assert time.monotonic() - killed_s < 10
    lost = group_lost(command)
    assert lost is not None
    assert (lost["role"], lost["host"]) == ("learner-5", victim)
    assert "SIGKILL" in str(lost["detail"])

    others, since_s = set(range(8)) - {5}, float(str(lost["t_s"])) + 0.5
    wait_until(lambda: merging(command, others, since_s), 60, "the other seven merge on")
    wait_until(lambda: collecting(command, others, since_s), 60, "and collect on")
    command.process.send_signal(2)
    assert command.wait(60) == 130, command.said
    late = [row for row in command.rows("merges") if row["t_s"] > since_s]
    assert all("5" not in row["versions"] for row in late), "the dead model counts no longer"
    assert command.summary["error"] is None
    assert_books_balance(command)
    bench.assert_nothing_left()


def test_a_group_whose_host_loses_power_is_given_up_and_the_others_go_on(bench: Bench) -> None:
    command = bench.tianji("up", *SHORT, *EIGHT, *NO_END, "--json", run="power")
    wait_until(lambda: merging(command, set(range(8))), 120, "all groups merge")
    victim = bench.hosts[3]
    assert bench.processes(victim)
    bench.lab.crash(victim)
    assert not bench.can_reach(bench.hosts[0], victim)
    wait_until(lambda: "host-lost" in command.kinds(), 25, "the coordinator gives it up")
    lost = next(row for row in command.rows("events") if row["kind"] == "host-lost")
    assert lost["role"] == victim
    wait_until(lambda: group_lost(command), 5, "and its group with it")
    others, since_s = set(range(8)) - {3}, lost["t_s"] + 0.5
    wait_until(lambda: merging(command, others, since_s), 60, "the other seven merge on")
    command.process.send_signal(2)
    assert command.wait(90) == 130, command.said
    assert f"{victim}: " in command.said, "what could not be cleaned up is named"
    assert_books_balance(command)
    bench.assert_nothing_left(hosts=[host for host in bench.hosts if host != victim])


def test_scaling_is_measured_on_as_many_hosts_as_there_are_nodes(bench: Bench) -> None:
    quick = ("-s", "nodes=[1, 3]", "-s", "experiment.stop.return_threshold=30", "--seeds", "1")
    command = bench.tianji(
        *("--json", "bench", "scaling", str(bench.lab.inventory), *quick),
        *("--name", "b", "--budget", "60", "--yes"),
    )
    assert command.wait(240) == 0, command.said
    one, three = json.loads(bench.out(command))["rows"]
    assert (one["num_reached"], three["num_reached"]) == (1, 1)
    cells = bench.results / "b" / "cells"
    for nodes in (1, 3):
        run = cells / f"nodes-{nodes}-seed0" / "run"
        summary = json.loads((run / "summary.json").read_text())
        assert (summary["num_hosts"], summary["num_groups"]) == (nodes, nodes)
        manifest = json.loads((run / "manifest.json").read_text())
        assert sorted(manifest["hosts"]) == bench.hosts[:nodes]
    assert three["speedup"]["estimate"] > 2, "collection waits, so it adds up even on few cores"
    assert (bench.results / "b" / "plots" / "scaling.svg").is_file()
    bench.assert_nothing_left()
