"""What tests ask of a command: waiting by its work, so that a busy machine fails none of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import running
from tests.helpers.running import Command


def started(tmp_path: Path, code: str) -> Command:
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    return Command(tmp_path, process)


def ended(command: Command) -> None:
    command.process.kill()
    command.process.communicate()


FOREVER = (
    "import subprocess, sys; subprocess.run([sys.executable, '-c', 'while True: pass'], timeout=60)"
)


def test_it_waits_as_long_as_its_processes_work(tmp_path: Path):
    command = started(tmp_path, FOREVER)
    try:
        with pytest.raises(AssertionError, match="of work did not do: wonders"):
            command.wait_for(lambda: False, "wonders", work_s=0.3)
    finally:
        for process in command.family:
            process.kill()
        ended(command)


def test_processes_that_do_nothing_are_stuck(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(running, "IDLE_S", 0.7)
    command = started(tmp_path, "import time; time.sleep(60)")
    try:
        with pytest.raises(AssertionError, match="nothing of it works, nor is it so: wonders"):
            command.wait_for(lambda: False, "wonders")
    finally:
        ended(command)


def test_a_command_that_has_ended_is_not_waited_for(tmp_path: Path):
    command = started(tmp_path, "print('why')")
    with pytest.raises(AssertionError, match=r"(?s)ended before: wonders.*why"):
        command.wait_for(lambda: False, "wonders")


def test_what_is_so_already_needs_no_command(tmp_path: Path):
    command = started(tmp_path, "")
    command.wait_for(lambda: True, "it is so")
    ended(command)
