"""A cluster manager ends a job: SIGTERM to every process of it at once, SIGKILL 30 s later."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time

import psutil
import pytest

from tests.helpers.running import EASY, ENDLESS, Command, rows, wait_for

pytestmark = pytest.mark.processes

KILL_WAIT_S = 30.0
"""Slurm's default `KillWait`."""


def end_job(command: Command, *, spares_command: bool = False) -> None:
    """What Slurm does, which at a time limit sends it twice within 3 ms."""
    command.look()
    job = [process.pid for process in command.alive()]
    if not spares_command:
        job.append(command.process.pid)
    for _ in range(2):
        for pid in job:
            with contextlib.suppress(ProcessLookupError):  # it has ended by the first one
                os.kill(pid, signal.SIGTERM)


def check_end(command: Command, began_s: float) -> dict[str, object]:
    """It has stopped gracefully within the time that the manager gives, and nothing is left.

    Returns:
        Its summary.
    """
    code, _, err = command.end()
    assert time.monotonic() - began_s < KILL_WAIT_S
    assert code == 130, err
    assert "killing" not in err
    assert not command.alive()
    run = command.cwd / "results/run"
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["status"], summary["stop_reason"]) == ("interrupted", "interrupted")
    taken = summary["env_steps_consumed"] + summary["env_steps_dropped"]
    assert summary["env_steps_collected"] == taken + summary["env_steps_in_flight"]
    newest = json.loads(sorted((run / "checkpoints").glob("v*.json"))[-1].read_text())
    assert newest["version"] == rows(run, "consumption")[-1]["version"] + 1
    return summary


@pytest.mark.parametrize(
    "spares_command", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["all", "steps"]
)
def test_it_stops_with_its_last_checkpoint(training, witness, spares_command):
    """`up` is a process of the job, or runs beside it, as in `salloc`."""
    began_s = time.monotonic()
    end_job(training, spares_command=spares_command)
    summary = check_end(training, began_s)
    if not spares_command:
        witness(
            "a cluster manager ends the job",
            "two SIGTERMs to everything: last checkpoint written, books balance, no process left",
            report_s=time.monotonic() - began_s,
            summary=summary,
        )


def test_also_if_the_simulators_of_its_environments_end_first(tianji):
    """Actors fail by it, which must not be taken for what has ended the run."""
    env = ("-s", "env.id=simulated_env:Simulated-v0", "-s", "restarts=0")
    command = tianji("up", "--name", "run", *env, *ENDLESS, *EASY)
    run = command.cwd / "results/run"
    command.wait_for(lambda: len(rows(run, "consumption")) > 3, "training is under way")
    began_s = time.monotonic()
    end_job(command)
    check_end(command, began_s)


@pytest.mark.slow
def test_a_learner_that_does_not_answer_is_killed_before_the_manager_would(training, witness):
    """Its socket directories go with it, which the manager would leave."""
    learner = training.role("learner-0")
    learner.send_signal(signal.SIGSTOP)
    wait_for(lambda: learner.status() == psutil.STATUS_STOPPED, 5, "it is frozen")
    began_s = time.monotonic()
    end_job(training)
    code, _, err = training.end(KILL_WAIT_S + 5)
    assert time.monotonic() - began_s < KILL_WAIT_S
    assert code in (1, 130), err
    assert not training.alive()
    summary = json.loads((training.cwd / "results/run/summary.json").read_text())
    witness(
        "a cluster manager ends the job",
        "with a frozen learner: killed and cleaned up before the manager would have done so",
        report_s=time.monotonic() - began_s,
        summary=summary,
    )
