"""A function as a child process: it has what was read, and nothing that is open."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from engine.host import fork
from engine.host.end_signals import END_SIGNAL
from engine.host.fork import Fork, end
from tests.helpers.paths import REPOSITORY
from tests.helpers.running import wait_for


@pytest.fixture
def log(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path / "log", os.O_RDWR | os.O_CREAT)
    yield descriptor
    os.close(descriptor)


def text_of(log: int) -> str:
    os.lseek(log, 0, os.SEEK_SET)
    return os.read(log, 1 << 16).decode()


def sleep() -> None:
    signal.signal(END_SIGNAL, signal.SIG_DFL)
    time.sleep(600)


def test_what_it_prints_goes_to_the_log(log: int):
    child = Fork(lambda: print("done", os.getpid()), log)
    assert child.wait(60) == 0
    assert child.poll() == child.returncode == 0
    assert text_of(log) == f"done {child.pid}\n"


def test_an_exception_is_the_last_that_the_log_says(log: int):
    def fail() -> None:
        raise RuntimeError("no such shape")

    assert Fork(fail, log).wait(60) == 1
    assert text_of(log).splitlines()[-1] == "RuntimeError: no such shape"


def test_it_never_goes_on_in_what_was_forked(log: int):
    """Neither an exit nor a signal that raises leads back into the code around it."""
    own = os.getpid()
    assert Fork(lambda: sys.exit(0), log).wait(60) == 1
    assert os.getpid() == own


def test_it_has_open_what_it_keeps_and_nothing_else(log: int):
    kept, other = os.pipe()
    reading = os.pipe()[0]

    def list_open() -> None:
        print(*(each for each in (kept, other, reading) if os.path.exists(f"/proc/self/fd/{each}")))

    assert Fork(list_open, log, (kept,)).wait(60) == 0
    assert text_of(log) == f"{kept}\n"
    for each in (kept, other, reading):
        os.close(each)


def test_who_waits_too_shortly_is_told_so(log: int):
    child = Fork(sleep, log)
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(0.01)
    assert child.poll() is None
    child.kill()
    assert child.wait(60) == -signal.SIGKILL


@pytest.mark.parametrize("end", [Fork.kill, lambda child: child.send_signal(END_SIGNAL)])
def test_one_that_has_ended_is_not_signalled(end: Callable[[Fork], None], log: int, monkeypatch):
    child = Fork(lambda: None, log)
    child.wait(60)
    monkeypatch.setattr(os, "kill", None)
    end(child)


PARENT = """
import os, sys, time
from engine.host import fork
from engine.host.fork import Fork, end
print(Fork(lambda: time.sleep(600), 2).pid, flush=True)
sys.stdin.read()
"""


def test_it_ends_with_its_parent():
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.communicate()
    psutil.wait_procs([child], timeout=60)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_one_that_ends_when_it_is_asked_is_not_killed(log: int):
    child = Fork(sleep, log)
    end(child)
    assert child.returncode == -END_SIGNAL
    end(child)


def test_one_that_does_not_is_killed(log: int, monkeypatch: pytest.MonkeyPatch):
    def stay() -> None:
        signal.signal(END_SIGNAL, signal.SIG_IGN)
        print("deaf")
        time.sleep(600)

    monkeypatch.setattr(fork, "END_S", 0.1)
    child = Fork(stay, log)
    wait_for(lambda: "deaf" in text_of(log), 60, "it ignores the signal")
    end(child)
    assert child.returncode == -signal.SIGKILL
