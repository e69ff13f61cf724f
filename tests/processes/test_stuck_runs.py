"""Alive but not getting on: named within a stated time, with its stack; the others go on."""

from __future__ import annotations

import json
import signal
import time

import psutil
import pytest

from engine.roles.coordinator.watchdog import PROBE_S
from engine.wire.socket_factory import HEARTBEAT_MS, HEARTBEAT_TIMEOUT_MS
from tests.helpers.running import ENDLESS, rows, wait_for

pytestmark = [pytest.mark.processes, pytest.mark.slow]

STUCK_S = 3.0
PROMPT = ("-s", f"watchdog.stuck_s={STUCK_S}")
LIMIT_S = STUCK_S + PROBE_S + 3.0
"""To be named, and for the stack to be taken."""


def kinds(run, kind: str) -> list[dict[str, object]]:
    return [row for row in rows(run, "events") if row["kind"] == kind]


def named(run, role: str) -> bool:
    return any(row["role"] == role for row in kinds(run, "stack"))


def test_a_frozen_actor_is_named_and_the_others_go_on(tianji, tmp_path, witness):
    run = tmp_path / "results/run"
    command = tianji("up", "--name", "run", *PROMPT, *ENDLESS)
    command.wait_for(lambda: len(rows(run, "consumption")) > 10, "training")
    actor = command.role("actor-1")
    actor.send_signal(signal.SIGSTOP)
    wait_for(lambda: actor.status() == psutil.STATUS_STOPPED, 5, "it is frozen")
    frozen_s = time.monotonic()
    wait_for(lambda: named(run, "actor-1"), 3 * LIMIT_S, "it is named")
    report_s = time.monotonic() - frozen_s
    assert report_s <= 2 * LIMIT_S
    assert [row["role"] for row in kinds(run, "stuck")] == ["actor-1"]
    assert "stopped by a signal" in kinds(run, "stack")[0]["detail"]
    done = len(rows(run, "consumption"))
    wait_for(lambda: len(rows(run, "consumption")) > done + 5, 30, "the others go on")
    actor.send_signal(signal.SIGCONT)
    wait_for(lambda: bool(kinds(run, "recovered")), 30, "it is at work again")
    command.process.send_signal(signal.SIGINT)
    code, _, err = command.end()
    assert code == 130
    assert "actor-1 on localhost has not answered for" in err
    witness(
        "SIGSTOP of an actor",
        f"named with its stack (stuck_s={STUCK_S:.0f}), its peer trained on, it recovered",
        report_s=report_s,
        summary=json.loads((run / "summary.json").read_text()),
    )


def test_an_environment_that_hangs_is_named_with_its_line_and_the_run_ends(
    tianji, tmp_path, witness
):
    """Nobody gets on any more, so after `watchdog.stalled_s` the run fails by name."""
    run = tmp_path / "results/run"
    hanging = ("-s", "env.id=broken_env:Hanging-v0", "-s", "actors=1", "-s", "watchdog.stalled_s=8")
    command = tianji("up", "--name", "run", *PROMPT, *hanging, *ENDLESS)
    command.wait_for(lambda: len(rows(run, "consumption")) > 3, "training")
    assert kinds(run, "stuck") == []
    began_s = time.monotonic()
    (tmp_path / "hang").touch()
    wait_for(lambda: named(run, "actor-0"), 3 * LIMIT_S, "it is named")
    report_s = time.monotonic() - began_s
    code, _, err = command.end(90)
    assert code == 1
    ((stack),) = [row for row in kinds(run, "stack") if row["role"] == "actor-0"]
    assert "broken_env.py" in stack["detail"]
    assert "in step" in stack["detail"]
    assert "broken_env.py" in (run / "logs/localhost/actor-0.log").read_text()
    assert "actor-0 on localhost has not answered for" in err
    assert "no process has done any work for" in err
    assert "the longest first: actor-0" in err
    assert not command.alive()
    witness(
        "environment that hangs",
        f"named with file and line (stuck_s={STUCK_S:.0f}), failed when all stood still, exit 1",
        report_s=report_s,
        summary=json.loads((run / "summary.json").read_text()),
    )


def test_a_frozen_learner_is_named_alone(tianji, tmp_path, witness):
    """Actors and buffer only wait for it, and they answer."""
    run = tmp_path / "results/run"
    command = tianji("up", "--name", "run", *PROMPT, *ENDLESS)
    command.wait_for(lambda: len(rows(run, "consumption")) > 10, "training")
    learner = command.role("learner-0")
    began_s = time.monotonic()
    learner.send_signal(signal.SIGSTOP)
    wait_for(lambda: learner.status() == psutil.STATUS_STOPPED, 5, "it is frozen")
    wait_for(lambda: named(run, "learner-0"), 3 * LIMIT_S, "it is named")
    report_s = time.monotonic() - began_s
    assert {row["role"] for row in kinds(run, "stuck")} == {"learner-0"}
    learner.send_signal(signal.SIGCONT)
    wait_for(lambda: bool(kinds(run, "recovered")), 30, "it is at work again")
    command.process.send_signal(signal.SIGINT)
    assert command.end()[0] == 130
    witness(
        "SIGSTOP of a learner",
        f"named alone with its stack (stuck_s={STUCK_S:.0f}), it recovered",
        report_s=report_s,
        summary=json.loads((run / "summary.json").read_text()),
    )


def test_what_is_for_a_frozen_learner_waits_for_it(tianji, tmp_path, witness):
    """Its batch becomes ready when hosts would long have given up each other's heartbeats."""
    run = tmp_path / "results/run"
    too_late_s = (HEARTBEAT_MS + HEARTBEAT_TIMEOUT_MS) / 1000 + 2.0
    slow = ("-s", f"env.step_latency_ms={too_late_s * 1000 / 50:.0f}", "-s", "actors=1")
    command = tianji("up", "--name", "run", *slow, *ENDLESS)
    command.wait_for(lambda: len(rows(run, "consumption")) > 0, "training")
    learner = command.role("learner-0")
    learner.send_signal(signal.SIGSTOP)
    frozen_s = time.monotonic()
    assert len(rows(run, "consumption")) == 1
    wait_for(lambda: len(rows(run, "production")) > 1, 60, "its batch is ready")
    assert time.monotonic() - frozen_s > (HEARTBEAT_MS + HEARTBEAT_TIMEOUT_MS) / 1000
    learner.send_signal(signal.SIGCONT)
    wait_for(lambda: len(rows(run, "consumption")) > 1, 10, "the batch has come")
    command.process.send_signal(signal.SIGINT)
    assert command.end()[0] == 130
    witness(
        "SIGSTOP of a learner, longer than heartbeats",
        f"frozen for {too_late_s:.0f} s, it got the batch that became ready meanwhile",
        summary=json.loads((run / "summary.json").read_text()),
    )


def test_slow_environments_are_no_alarm(tianji, tmp_path):
    """A vector step takes as long as a process may be silent, and longer than that between
    rollouts; every loop still turns."""
    run = tmp_path / "results/run"
    slow = ("-s", "env.step_latency_ms=1000", "-s", "watchdog.stuck_s=1.5", "-s", "actors=1")
    command = tianji("up", "--name", "run", *slow, *ENDLESS)
    wait_for(lambda: bool(kinds(run, "started")), 60, "it has started")
    time.sleep(4 * PROBE_S)  # nothing may happen, so there is nothing to wait for
    assert kinds(run, "stuck") == []
    command.process.send_signal(signal.SIGINT)
    assert command.end()[0] == 130
