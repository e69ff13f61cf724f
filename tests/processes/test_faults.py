"""What happens when something dies: reported by name, and nothing left. Each fault is proved."""

from __future__ import annotations

import json
import os
import signal
import time

import psutil
import pytest

from engine.host.endpoints import PREFIX
from tests.helpers.running import EASY, ENDLESS, rows, wait_for

pytestmark = pytest.mark.processes

REPORTED_S = 10.0
"""P2: within so much a death is reported."""
MAX_IDLE_CORES = 0.1
"""Of one role. One that spins takes a whole core, or what it gets of it."""
MAX_IDLE_WAKES_PER_S = {"buffer-0": 2.0, "learner-0": 2.0, "coordinator": 10.0, "supervisor": 10.0}
"""Nobody asks the first two but a probe; the others beat, and show progress four times a second."""


@pytest.mark.parametrize(
    "address", [pytest.param("buffer-0", marks=pytest.mark.slow), "learner-0", "coordinator"]
)
def test_a_killed_role_ends_the_run_by_name(training, witness, address):
    role = training.role(address)
    began_s = time.monotonic()
    role.send_signal(signal.SIGKILL)
    wait_for(lambda: not is_alive(role), 5, "the role is dead")
    code, _, err = training.end()
    report_s = time.monotonic() - began_s
    assert report_s < REPORTED_S
    assert code == 1
    assert address in err
    assert "SIGKILL" in err
    assert not training.alive()
    summary = json.loads((training.cwd / "results/run/summary.json").read_text())
    assert summary["status"] == "failed"
    assert address in summary["error"]
    role_name = address.removesuffix("-0")
    witness(
        f"`kill -9` of {'the' if role_name == 'coordinator' else 'a'} {role_name}",
        "failed by name and signal, exit 1, no process left",
        report_s=report_s,
        summary=summary if role_name != "coordinator" else None,
    )


def test_a_killed_actor_is_replaced_and_training_goes_on(training, witness):
    run = training.cwd / "results/run"
    actor = training.role("actor-1")
    began_s = time.monotonic()
    actor.send_signal(signal.SIGKILL)
    wait_for(lambda: not is_alive(actor), 5, "the actor is dead")
    wait_for(lambda: kinds(run, "restarted"), REPORTED_S, "it was replaced")
    report_s = time.monotonic() - began_s
    assert report_s < REPORTED_S
    assert "SIGKILL" in kinds(run, "restarted")[0]["detail"]
    wait_for(lambda: any(row["epoch"] == 1 for row in rows(run, "production")), 30, "it works")
    training.process.send_signal(signal.SIGINT)
    assert training.end()[0] == 130
    summary = json.loads((run / "summary.json").read_text())
    assert summary["restarts"] == 1
    taken = summary["env_steps_consumed"] + summary["env_steps_dropped"]
    assert summary["env_steps_collected"] == taken + summary["env_steps_in_flight"]
    assert not training.alive()
    witness(
        "`kill -9` of an actor",
        "replaced once, the new one collects, books balance",
        report_s=report_s,
        summary=summary,
    )


def test_without_a_budget_a_killed_actor_ends_the_run_by_name(tianji, tmp_path):
    command = tianji("up", "--name", "run", "-s", "restarts=0", *ENDLESS, *EASY)
    command.wait_for(lambda: len(rows(tmp_path / "results/run", "consumption")) > 10, "training")
    command.role("actor-1").send_signal(signal.SIGKILL)
    code, _, err = command.end()
    assert code == 1
    assert "actor-1" in err
    assert "SIGKILL" in err


@pytest.mark.parametrize("kill", [True, False])
def test_an_actor_lost_after_the_stop_rule_fails_no_run_that_has_reached_its_end(
    tianji, tmp_path, kill
):
    """It is frozen so that it cannot say its last word before it is killed, or at all."""
    limit = ("-s", "stop.env_steps=12000", "-s", "stop.return_threshold=null")
    command = tianji(
        "--json", "up", "--name", "run", *EASY, *limit, "-s", "staleness.mode=unbounded"
    )
    run = tmp_path / "results/run"
    command.wait_for(lambda: len(rows(run, "consumption")) > 5, "training")
    actor = command.role("actor-1")
    actor.send_signal(signal.SIGSTOP)
    wait_for(lambda: actor.status() == psutil.STATUS_STOPPED, 5, "the actor is frozen")
    wait_for(lambda: kinds(run, "stopping"), 60, "the stop rule holds")
    if kill:
        actor.send_signal(signal.SIGKILL)
    code, out, err = command.end(60)
    assert code == 0, err
    summary = json.loads(out)
    assert (summary["status"], summary["stop_reason"]) == ("ok", "env_steps")
    taken = summary["env_steps_consumed"] + summary["env_steps_dropped"]
    assert summary["env_steps_collected"] == taken + summary["env_steps_in_flight"]
    assert [row["role"] for row in kinds(run, "exited" if kill else "given-up")] == ["actor-1"]
    assert not command.alive()


@pytest.mark.parametrize("name", ["tj-forkserver", "tj-supervisor"])
def test_a_killed_keeper_of_roles_leaves_no_role(training, witness, name):
    keeper = training.role(name.removeprefix("tj-"))
    began_s = time.monotonic()
    keeper.send_signal(signal.SIGKILL)
    code, _, err = training.end()
    report_s = time.monotonic() - began_s
    assert report_s < REPORTED_S
    assert code == 1
    assert "error:" in err
    wait_for(lambda: not training.alive(), 5, "no role is left")
    witness(
        "`kill -9` of a supervisor or forkserver",
        f"{name.removeprefix('tj-')}: failed by name, exit 1, no role left",
        report_s=report_s,
    )


@pytest.mark.parametrize("name", ["tj-forkserver", "tj-supervisor"])
def test_a_keeper_of_roles_that_is_frozen_keeps_nobody_from_ending_the_run(training, name):
    keeper = training.role(name.removeprefix("tj-"))
    keeper.send_signal(signal.SIGSTOP)
    wait_for(lambda: keeper.status() == psutil.STATUS_STOPPED, 5, "it is frozen")
    training.process.send_signal(signal.SIGINT)
    if name == "tj-supervisor":  # it cannot hear of it
        training.process.send_signal(signal.SIGTERM)
    code, _, err = training.end(50)
    assert code == 130 or (name == "tj-supervisor" and "host localhost is lost" in err), err
    wait_for(lambda: not training.alive(), 5, "no role is left")


def test_a_role_that_raises_ends_the_run_with_its_traceback(tianji, witness):
    command = tianji("up", "--name", "run", "-s", "env.id=broken_env:Broken-v0", *ENDLESS)
    code, _, err = command.end()
    assert code == 1
    assert "ValueError: the simulator fell over" in err
    assert "broken_env:Broken-v0 raised this in step 30" in err
    assert "actor-" in err
    command.look()
    assert not command.alive()
    witness(
        "environment that raises",
        "failed with traceback, id and step once its restarts were used up, exit 1",
        summary=json.loads((command.cwd / "results/run/summary.json").read_text()),
    )


def test_ctrl_c_ends_the_run_in_good_order(training, witness):
    began_s = time.monotonic()
    training.process.send_signal(signal.SIGINT)
    code, out, _ = training.end()
    report_s = time.monotonic() - began_s
    assert code == 130
    assert "interrupted" in out
    assert not training.alive()
    summary = json.loads((training.cwd / "results/run/summary.json").read_text())
    assert summary["status"] == "interrupted"
    taken = summary["env_steps_consumed"] + summary["env_steps_dropped"]
    assert summary["env_steps_collected"] == taken + summary["env_steps_in_flight"]
    assert list(training.cwd.glob("results/run/checkpoints/*.json"))
    witness(
        "Ctrl-C once",
        "interrupted in good order, checkpoint written, books balance, no process left",
        report_s=report_s,
        summary=summary,
    )


def test_ctrl_c_twice_ends_even_a_run_that_cannot_stop(training, witness):
    learner = training.role("learner-0")
    learner.send_signal(signal.SIGSTOP)
    wait_for(lambda: learner.status() == psutil.STATUS_STOPPED, 5, "the learner is frozen")
    training.process.send_signal(signal.SIGINT)
    run = training.cwd / "results/run"
    wait_for(lambda: any(r["kind"] == "stopping" for r in rows(run, "events")), 5, "it stops")
    began_s = time.monotonic()
    training.process.send_signal(signal.SIGINT)
    code, _, _ = training.end(9)  # sooner than the run would give the learner up
    report_s = time.monotonic() - began_s
    assert code == 130
    wait_for(lambda: not training.alive(), 2, "no role is left")
    witness("Ctrl-C twice", "ended with a frozen learner, no process left", report_s=report_s)


def test_a_command_that_is_stopped_and_continued_finds_its_run_again(training, witness):
    """As Ctrl-Z and `fg` do; SIGSTOP, as SIGTSTP stops nobody outside of a shell's job control."""
    run, command = training.cwd / "results/run", psutil.Process(training.process.pid)
    command.send_signal(signal.SIGSTOP)
    wait_for(lambda: command.status() == psutil.STATUS_STOPPED, 5, "the command is stopped")
    known = len(rows(run, "consumption"))
    training.wait_for(lambda: len(rows(run, "consumption")) > known + 20, "it trains on")
    assert command.status() == psutil.STATUS_STOPPED
    command.send_signal(signal.SIGCONT)
    training.process.send_signal(signal.SIGINT)
    code, _, err = training.end()
    assert code == 130, err
    assert "lost" not in err
    assert not training.alive()
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["status"], summary["restarts"]) == ("interrupted", 0)
    taken = summary["env_steps_consumed"] + summary["env_steps_dropped"]
    assert summary["env_steps_collected"] == taken + summary["env_steps_in_flight"]
    witness(
        "Ctrl-Z, and `fg` later",
        "trained on while the command was stopped; continued, it obeyed Ctrl-C, books balance",
        summary=summary,
    )


def test_a_command_stopped_until_its_run_has_ended_still_tells(training):
    command = psutil.Process(training.process.pid)
    command.send_signal(signal.SIGSTOP)
    wait_for(lambda: command.status() == psutil.STATUS_STOPPED, 5, "the command is stopped")
    training.role("supervisor").send_signal(signal.SIGTERM)
    summary = training.cwd / "results/run/summary.json"
    wait_for(summary.is_file, 30, "the run has ended")
    wait_for(lambda: not training.alive(), 10, "its roles are gone")
    command.send_signal(signal.SIGCONT)
    code, out, err = training.end(20)
    assert code == 130, err
    assert "interrupted" in out


def test_killing_the_command_leaves_nothing(training, witness):
    sockets = open_socket_dirs(training)
    assert sockets
    began_s = time.monotonic()
    training.process.send_signal(signal.SIGKILL)
    training.process.wait(5)
    wait_for(lambda: not training.alive(), 10, "no process is left")
    assert not [path for path in sockets if os.path.exists(path)]
    witness(
        "`kill -9` of the controller",
        "no process and no socket left on this machine",
        report_s=time.monotonic() - began_s,
    )


def test_idle_roles_neither_spin_nor_poll(training):
    """With the actors frozen nobody has anything to do but to beat, to probe and to show progress.

    Wake-ups are counted because what one costs says more about the machine than about the role: a
    shared one takes a sleeping process's caches away.
    """
    for address in ("actor-0", "actor-1"):
        training.role(address).send_signal(signal.SIGSTOP)
    idle = {name: training.role(name) for name in MAX_IDLE_WAKES_PER_S}
    run = training.cwd / "results/run"
    count = -1
    while count != (count := len(rows(run, "consumption"))):
        learner_rests(idle["learner-0"])
    before = {name: (cpu_s(process), wakes(process)) for name, process in idle.items()}
    begun_s = time.monotonic()
    psutil.Process(training.process.pid).cpu_percent(interval=3.0)
    after = {name: (cpu_s(process), wakes(process)) for name, process in idle.items()}
    seconds = time.monotonic() - begun_s  # longer, if this test itself had to wait
    cores = {name: (after[name][0] - used_s) / seconds for name, (used_s, _) in before.items()}
    wakes_per_s = {name: (after[name][1] - num) / seconds for name, (_, num) in before.items()}
    assert max(cores.values()) < MAX_IDLE_CORES, cores
    for name, limit_per_s in MAX_IDLE_WAKES_PER_S.items():
        assert wakes_per_s[name] < limit_per_s, wakes_per_s
    for address in ("actor-0", "actor-1"):
        training.role(address).send_signal(signal.SIGCONT)


def wakes(process: psutil.Process) -> int:
    """How often its main thread has gone to sleep so far."""
    return int(process.num_ctx_switches().voluntary)


def learner_rests(process: psutil.Process) -> None:
    process.cpu_percent(interval=0.5)


def cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def kinds(run, kind) -> list[dict[str, object]]:
    return [row for row in rows(run, "events") if row["kind"] == kind]


def is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False  # it went between the two questions


def open_socket_dirs(command) -> set[str]:
    """Directories of the Unix sockets that the command's processes listen on."""
    return {
        os.path.dirname(connection.laddr)
        for process in command.alive()
        for connection in process.net_connections("unix")
        if connection.laddr
        and os.path.basename(os.path.dirname(connection.laddr)).startswith(PREFIX)
    }
