"""What becomes of a run when an SSH session of it breaks, although the data network does not."""

from __future__ import annotations

import signal
import time

import pytest

from tests.helpers.ssh_kit import SHORT, SLOWED, Bench, Command, limits, wait_until
from tianji_cli.analysis.check import rebuild_counters
from tianji_cli.analysis.run import load_run
from tianji_cli.storage.run_dir import RunPaths

pytestmark = pytest.mark.lab

ENDLESS = (*SHORT, *SLOWED, "-s", "stop.env_steps=null", "-s", "actors=2")
END_S = 100.0
"""From the stop rule to the end of `up`, whatever the network does (docs/reliability.md)."""


def session_of(bench: Bench, host: str) -> int:
    """The sshd process that carries the supervisor's streams, in the host's own numbering."""
    pid = bench.supervisor_pid(host)
    for _ in ("its keeper", "sshd"):
        pid = int(bench.lab.exec(host, ["ps", "-o", "ppid=", "-p", str(pid)]).stdout)
    return pid


def signal_session(bench: Bench, host: str, pid: int, number: signal.Signals) -> None:
    name = bench.lab.exec(host, ["ps", "-o", "args=", "-p", str(pid)]).stdout
    assert "sshd" in name, name
    assert bench.lab.exec(host, ["kill", f"-{int(number)}", str(pid)]).returncode == 0


def trained_on(command: Command) -> None:
    """Without the actor of the host that is lost."""
    known = len(command.rows("consumption"))
    wait_until(lambda: len(command.rows("consumption")) > known + 3, 30, "it trains on")


def test_a_session_that_dies_costs_its_host_and_not_the_run(bench: Bench) -> None:
    one, two, three, _ = bench.hosts
    settings = ("-s", "stop.seconds=15", *limits(one, two, three))
    command = bench.tianji("up", *ENDLESS, *settings, run="session")
    command.wait_for_training()
    signal_session(bench, three, session_of(bench, three), signal.SIGKILL)
    wait_until(lambda: "host-lost" in command.kinds(), 10, "the coordinator gives it up")
    wait_until(lambda: not bench.processes(three), 20, "it has ended its roles by itself")
    trained_on(command)
    assert command.wait(60) == 0, command.said
    assert (command.summary["status"], command.summary["stop_reason"]) == ("ok", "seconds")
    assert f"{three} is lost" in command.said
    assert not rebuild_counters(load_run(RunPaths(command.run_dir)))
    bench.assert_nothing_left()


def test_a_session_that_is_stopped_costs_its_host_and_not_the_run(bench: Bench) -> None:
    one, two, three, _ = bench.hosts
    settings = ("-s", "stop.seconds=30", *limits(one, two, three))
    command = bench.tianji("up", *ENDLESS, *settings, run="stopped-session")
    command.wait_for_training()
    session = session_of(bench, three)
    signal_session(bench, three, session, signal.SIGSTOP)
    try:
        wait_until(lambda: "host-lost" in command.kinds(), 25, "it says that it leaves")
        lost = next(row for row in command.rows("events") if row["kind"] == "host-lost")
        assert lost["role"] == three
        trained_on(command)
        assert command.wait(30 + END_S) == 0, command.said
    finally:
        signal_session(bench, three, session, signal.SIGKILL)
    assert (command.summary["status"], command.summary["stop_reason"]) == ("ok", "seconds")
    bench.assert_nothing_left()


def test_a_session_of_the_host_with_the_learner_that_dies_ends_the_run(bench: Bench) -> None:
    one, two, *_ = bench.hosts
    command = bench.tianji("up", *ENDLESS, "-s", "stop.seconds=100", *limits(one, two), run="head")
    command.wait_for_training()
    signal_session(bench, one, session_of(bench, one), signal.SIGKILL)
    assert command.wait(60) == 1, command.said
    assert f"{one} is lost" in command.said
    for host in (one, two):
        wait_until(lambda host=host: not bench.processes(host), 30, f"{host} is empty")


def test_a_link_that_swallows_large_packets_holds_up_no_end(bench: Bench) -> None:
    one, two, *_ = bench.hosts
    command = bench.tianji("up", *ENDLESS, "-s", "stop.seconds=12", *limits(one, two), run="mtu")
    command.wait_for_training()
    rule = ["OUTPUT", "-p", "tcp", "--sport", "22", "-m", "length", "--length", "300:65535"]
    assert bench.lab.exec(two, ["iptables", "-w", "-I", *rule, "-j", "DROP"]).returncode == 0
    try:
        began_s = time.monotonic()
        code = command.wait(12 + END_S)
        assert time.monotonic() - began_s < 12 + END_S
    finally:
        bench.lab.exec(two, ["iptables", "-w", "-D", *rule, "-j", "DROP"])
    assert code == 7, command.said
    assert command.summary["status"] == "ok"
    assert f"    {two}: " in command.said
    down = bench.tianji("down", "mtu")
    assert down.wait(60) == 0, down.said
    bench.assert_nothing_left()
