"""A cluster manager's SIGTERM leaves roles alone, but not what their code has started."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from engine.host.end_signals import END_SIGNAL, SAME_S, Requests
from tests.helpers.paths import REPOSITORY

ROLE = """
import os, signal, subprocess, sys, time
import psutil
from engine.host import end_signals as it

it.end_by(it.END_SIGNAL)
with it.sigterm_held_back():
    program = subprocess.Popen([sys.executable, "-c", READY], stdout=subprocess.PIPE)
    os.kill(os.getpid(), signal.SIGTERM)  # held back until it is ignored
    it.leave_sigterm_to_supervisor()
os.kill(os.getpid(), signal.SIGTERM)
assert program.stdout.readline() == b"ready\\n"
print(program.wait(), flush=True)
simulator = subprocess.Popen(["sleep", "60"])
simulator.terminate()
print(simulator.wait(), flush=True)
ready, say = os.pipe()
fork = os.fork()
if fork == 0:
    os.write(say, b"!")
    os.read(os.pipe()[0], 1)  # as a worker of a vector environment waits for its next step
    os._exit(9)
os.read(ready, 1)
while psutil.Process(fork).status() != psutil.STATUS_SLEEPING:
    time.sleep(0.01)
os.kill(fork, signal.SIGTERM)
print(os.waitstatus_to_exitcode(os.waitpid(fork, 0)[1]), flush=True)
os.kill(os.getpid(), it.END_SIGNAL)
time.sleep(60)
"""
READY = """
import os, signal
from engine.host import end_signals as it
os.kill(os.getpid(), signal.SIGTERM)
it.leave_sigterm_to_supervisor()
it.deliver_sigterm()
os.kill(os.getpid(), signal.SIGTERM)
print("ready")
"""


def test_a_role_ignores_sigterm_and_what_its_code_starts_does_not():
    done = subprocess.run(
        [sys.executable, "-c", f"READY = {READY!r}\n{ROLE}"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    program, simulator, fork = map(int, done.stdout.split())
    assert program == 0, "a forkserver that was started while it could not ignore it yet"
    assert simulator == -signal.SIGTERM, "a program that an environment ends"
    assert fork == 128 + signal.SIGTERM, "a process that an environment has forked"
    assert done.returncode == 128 + END_SIGNAL, done.stderr


@pytest.mark.parametrize(
    ("signals", "count"),
    [
        ([(signal.SIGTERM, 0.0), (signal.SIGTERM, 0.003)], 1),
        ([(signal.SIGTERM, 0.0), (signal.SIGTERM, SAME_S)], 2),
        ([(signal.SIGTERM, 5.0), (signal.SIGTERM, 5.9), (signal.SIGTERM, 6.1)], 2),
        ([(signal.SIGINT, 0.0), (signal.SIGINT, 0.1)], 2),
        ([(signal.SIGINT, 0.0), (signal.SIGTERM, 0.1), (signal.SIGTERM, 0.2)], 2),
    ],
)
def test_sigterms_that_come_together_are_one_request(signals, count):
    requests = Requests()
    taken = sum(requests.take(number, now_s) for number, now_s in signals)
    assert taken == requests.count == count
