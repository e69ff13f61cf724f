"""Faults over real SSH: each test first proves that the fault happened."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from tests.helpers.fault_rows import Witness
from tests.helpers.ssh_kit import SHORT, SLOWED, Bench, Command, limits, wait_until
from tianji_cli.analysis.check import rebuild_counters
from tianji_cli.analysis.run import load_run
from tianji_cli.storage.run_dir import RunPaths

pytestmark = pytest.mark.lab

ENDLESS = (*SHORT, *SLOWED, "-s", "stop.env_steps=null", "-s", "actors=2")


def training(
    bench: Bench, run: str, *hosts: str, seconds: int = 100, restarts: int | None = None
) -> Command:
    """A run of two actors on these hosts, which trains already and ends after some seconds."""
    settings = ["-s", f"stop.seconds={seconds}"]
    if restarts is not None:
        settings += ["-s", f"restarts={restarts}"]
    command = bench.tianji("up", *ENDLESS, *settings, *limits(*hosts), run=run)
    command.wait_for_training()
    return command


def test_a_killed_actor_comes_back(bench: Bench, witness: Witness) -> None:
    one, two, *_ = bench.hosts
    command = training(bench, "actor", one, two, seconds=9)
    pid = bench.role_pid(two, "actor", "actor-1")
    began_s = time.monotonic()
    bench.kill(two, pid)
    wait_until(lambda: not bench.is_alive(two, pid), 2, "the actor is dead")
    wait_until(lambda: "restarted" in command.kinds(), 10, "the restart is traced")
    report_s = time.monotonic() - began_s
    assert command.wait(60) == 0, command.said
    assert command.summary["restarts"] == 1
    rows = [row for row in command.rows("production") if row["actor"] == 1]
    assert {row["epoch"] for row in rows} == {0, 1}
    killed = next(row for row in command.rows("events") if row["kind"] == "restarted")
    assert killed["host"] == two
    assert "SIGKILL" in killed["detail"]
    assert not rebuild_counters(load_run(RunPaths(command.run_dir)))
    bench.assert_nothing_left()
    witness(
        "`kill -9` of an actor",
        "over SSH: replaced on its host, the trace came over at once, books balance",
        report_s=report_s,
        summary=command.summary,
    )


@pytest.mark.parametrize(
    ("role", "fault", "proof"),
    [
        ("actor-0", "actors that keep dying", "with `restarts=0` failed"),
        ("learner-0", "`kill -9` of a learner", "over SSH: failed"),
    ],
)
def test_a_death_that_ends_the_run_is_named(
    bench: Bench, witness: Witness, role: str, fault: str, proof: str
) -> None:
    one, two, *_ = bench.hosts
    kind, run = role.partition("-")[0], f"dead-{role}"
    where = two if kind == "actor" else one
    command = training(bench, run, one, two, restarts=0)
    bench.kill(where, bench.role_pid(where, run, role))
    began_s = time.monotonic()
    assert command.wait(40) == 1, command.said
    report_s = time.monotonic() - began_s
    assert report_s < 15
    cause = f"{role} on {where} was killed by SIGKILL"
    assert cause in command.summary["error"]
    assert cause in command.said
    bench.assert_nothing_left()
    witness(
        fault,
        f"{proof} by name and signal, exit 1, nothing left on any host",
        report_s=report_s,
        summary=command.summary,
    )


def test_a_killed_supervisor_takes_its_roles_along(bench: Bench, witness: Witness) -> None:
    one, two, three, _ = bench.hosts
    command = training(bench, "supervisor", one, two, three, seconds=8)
    assert bench.processes(three)
    began_s = time.monotonic()
    bench.kill(three, bench.supervisor_pid(three))
    wait_until(lambda: not bench.processes(three), 3, "its host is empty")
    wait_until(lambda: f"{three} is lost" in command.said, 10, "the loss is reported by name")
    report_s = time.monotonic() - began_s
    wait_until(lambda: "host-lost" in command.kinds(), 5, "the coordinator was told")
    assert command.wait(60) == 0, command.said
    lost = next(row for row in command.rows("events") if row["kind"] == "host-lost")
    assert lost["role"] == three
    assert not rebuild_counters(load_run(RunPaths(command.run_dir)))
    bench.assert_nothing_left()
    witness(
        "`kill -9` of a supervisor or forkserver",
        "over SSH: its host empty within 3 s and given up by name, the others trained on, exit 0",
        report_s=report_s,
        summary=command.summary,
    )


def test_a_killed_controller_leaves_no_process(bench: Bench, witness: Witness) -> None:
    one, two, *_ = bench.hosts
    command = training(bench, "controller", one, two)
    assert bench.processes(one)
    assert bench.processes(two)
    began_s = time.monotonic()
    command.process.kill()
    assert command.process.wait(5) == -signal.SIGKILL
    for host in (one, two):
        wait_until(
            lambda host=host: not bench.processes(host),
            30,
            f"{host} is empty, but runs {bench.processes(host)}",
        )
    witness(
        "`kill -9` of the controller",
        "over SSH: both hosts empty after that time",
        report_s=time.monotonic() - began_s,
    )


def test_a_short_cut_is_survived(bench: Bench, witness: Witness) -> None:
    one, two, three, _ = bench.hosts
    command = training(bench, "short-cut", one, two, three, seconds=16)
    bench.lab.cut(two)
    before = len([row for row in command.rows("production") if row["actor"] == 0])
    assert not bench.can_reach(one, two)
    time.sleep(4)  # the fault itself
    bench.lab.heal(two)
    assert bench.can_reach(one, two)

    def has_come_back() -> bool:
        return len([row for row in command.rows("production") if row["actor"] == 0]) > before + 3

    wait_until(has_come_back, 12, f"its actor collects again\n{command.said}")
    assert command.wait(60) == 0, command.said
    assert command.summary["restarts"] == 0
    assert "host-lost" not in command.kinds()
    bench.assert_nothing_left()
    witness(
        "network cut of seconds",
        "4 s: no restart, no host given up, its actor collected again, exit 0",
        summary=command.summary,
    )


def test_a_host_that_stays_cut_off_is_given_up_by_name(bench: Bench, witness: Witness) -> None:
    one, two, three, _ = bench.hosts
    command = training(bench, "cut", one, two, three, seconds=18)
    assert bench.processes(three)
    began_s = time.monotonic()
    bench.lab.cut(three)
    assert not bench.can_reach(one, three)
    wait_until(lambda: "host-lost" in command.kinds(), 16, "the coordinator gives it up")
    report_s = time.monotonic() - began_s
    wait_until(lambda: not bench.processes(three), 20, "it has ended its roles by itself")
    wait_until(lambda: f"{three} is lost" in command.said, 20, "the user is told")
    code = command.wait(90)
    assert code == 7, command.said
    assert command.summary["status"] == "ok"
    assert f"    {three}: " in command.said
    assert "tianji down cut" in command.said
    bench.assert_nothing_left(hosts=[one, two])
    witness(
        "network cut that lasts",
        "an actor's host: given up by name, its roles ended by themselves, the others trained on",
        report_s=report_s,
        summary=command.summary,
    )


def test_the_learner_cut_off_ends_the_run_on_all_hosts(bench: Bench, witness: Witness) -> None:
    one, two, *_ = bench.hosts
    command = training(bench, "head-cut", one, two)
    began_s = time.monotonic()
    bench.lab.cut(one)
    assert not bench.can_reach(two, one)
    assert command.wait(60) == 1, command.said
    report_s = time.monotonic() - began_s
    assert f"{one} is lost" in command.said
    wait_until(lambda: not bench.processes(two), 15, "no coordinator, no roles")
    wait_until(lambda: not bench.processes(one), 30, "no controller, no roles")
    bench.lab.heal(one)
    wait_until(lambda: bench.can_reach(two, one), 5, "healed")
    down = bench.tianji("down", "head-cut")
    assert down.wait(60) == 0, down.said
    bench.assert_nothing_left()
    witness(
        "network cut that lasts",
        "the learner's host: failed by name, exit 1, both hosts ended themselves, `down` cleaned",
        report_s=report_s,
    )


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_leaves_nothing(bench: Bench, witness: Witness, times: int) -> None:
    one, two, *_ = bench.hosts
    run = f"interrupted-{times}"
    command = training(bench, run, one, two)
    began_s = time.monotonic()
    for _ in range(times):
        command.process.send_signal(signal.SIGINT)
    assert command.wait(30) in ((130,) if times == 1 else (1, 130)), command.said
    report_s = time.monotonic() - began_s
    bench.assert_nothing_left()
    fault = f"Ctrl-C {'once' if times == 1 else 'twice'}"
    witness(fault, "over SSH: nothing left on any host", report_s=report_s)


def test_a_killed_supervisor_of_a_single_host_leaves_no_sockets(bench: Bench) -> None:
    one = bench.hosts[0]
    command = training(bench, "single", one)
    assert "tianji-" in bench.lab.exec(one, ["ls", "/tmp"]).stdout
    bench.kill(one, bench.supervisor_pid(one))
    assert command.wait(30) == 1, command.said
    assert f"{one} is lost" in command.said
    bench.assert_nothing_left()


def test_one_unreachable_host_of_four_stops_everything(bench: Bench, witness: Witness) -> None:
    *others, last = bench.hosts
    bench.lab.cut(last)
    assert not bench.can_reach(others[0], last)
    began_s = time.monotonic()
    command = bench.tianji("up", *SHORT, "-s", "actors=3", run="unreachable")
    assert command.wait(60) == 4, command.said
    report_s = time.monotonic() - began_s
    assert last in command.said
    assert not command.run_dir.exists()
    bench.assert_nothing_left(hosts=others)
    witness(
        "one unreachable host of four",
        "exit 4, the host named, nothing on the other three, no run directory",
        report_s=report_s,
    )


def _with_known_hosts(bench: Bench, text: str) -> Path:
    known_hosts = bench.results / "known_hosts"
    known_hosts.write_text(text)
    inventory = bench.results / "inventory.yaml"
    written = bench.lab.inventory.read_text().splitlines()
    lines = [
        f"  known_hosts: {known_hosts}" if line.startswith("  known_hosts:") else line
        for line in written
    ]
    inventory.write_text("\n".join(lines) + "\n")
    return inventory


def test_an_unknown_host_key_is_an_error_that_says_how_to_accept_it(bench: Bench) -> None:
    inventory = _with_known_hosts(bench, "")
    one = bench.hosts[0]
    command = bench.tianji("up", *limits(one), run="unknown", inventory=inventory)
    assert command.wait(30) == 3, command.said
    assert "SHA256:" in command.said
    assert f"ssh-keyscan {bench.address(one)} >> {bench.results / 'known_hosts'}" in command.said
    bench.assert_nothing_left()


def test_a_changed_host_key_is_refused(bench: Bench, witness: Witness) -> None:
    one = bench.hosts[0]
    trusted = (bench.lab.paths.directory / "known_hosts").read_text().splitlines()
    keys = [line.split(maxsplit=1) for line in trusted]
    swapped = f"{keys[0][0]} {keys[1][1]}\n"
    assert keys[0][1] != keys[1][1]
    inventory = _with_known_hosts(bench, swapped)
    command = bench.tianji("up", *limits(one), run="changed", inventory=inventory)
    assert command.wait(30) == 3, command.said
    assert "CHANGED" in command.said
    assert "ssh-keygen -R" in command.said
    bench.assert_nothing_left()
    witness("host key unknown or changed", "refused as CHANGED with what to type, exit 3")
