"""A command's process ends when everything is said, whatever its libraries have left behind."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from tests.helpers.paths import REPOSITORY
from tianji_cli.interrupts import Interrupts

ROOT = REPOSITORY
LEAVES = """
import atexit, sys, threading
from tianji_cli.interrupts import run_and_leave

def command():
    threading.Thread(target=threading.Event().wait).start()  # as a simulator's, which never ends
    atexit.register(print, "helpers are ended")
    print("said")
    {end}

run_and_leave(command)
"""


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("return", 0),
        ("sys.exit()", 0),
        ("sys.exit(7)", 7),
        ("sys.exit(True)", 1),
        ("sys.exit('words')", 1),
    ],
)
def test_what_is_left_behind_holds_no_command_up(end: str, code: int):
    done = subprocess.run(
        [sys.executable, "-c", LEAVES.format(end=end)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.returncode, done.stdout) == (code, "said\nhelpers are ended\n")
    assert done.stderr == ("words\n" if "words" in end else "")


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
@pytest.mark.parametrize("count", [1, 2])
def test_a_signal_in_the_very_end_changes_nothing_and_a_second_one_ends_it(name: str, count: int):
    number = signal.Signals[name]
    code = 3 if count == 1 else -number
    raised = f"[signal.raise_signal({int(number)}) for _ in range({count})]"
    end = f"signal.signal({int(number)}, signal.SIG_DFL); atexit.register(lambda: {raised})"
    text = LEAVES.replace("import atexit", "import signal, atexit")
    done = subprocess.run(
        [sys.executable, "-c", text.format(end=f"{end}; sys.exit(3)")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.returncode, done.stderr) == (code, "")


def test_an_error_of_the_program_itself_still_has_its_traceback():
    code = "from tianji_cli.interrupts import run_and_leave\nrun_and_leave(lambda: 1 / 0)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_who_presses_ctrl_c_twice_is_in_a_hurry(count: int):
    interrupts = Interrupts()
    with interrupts.installed():
        for _ in range(count):
            signal.raise_signal(signal.SIGINT)
    assert interrupts.count == count
    assert interrupts.is_urgent() == (count > 1)


def test_a_manager_that_sends_sigterm_twice_asks_once():
    interrupts, heard = Interrupts(), []
    with interrupts.installed(lambda: heard.append(interrupts.count)):
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert heard == [1]
        signal.raise_signal(signal.SIGINT)
    assert heard == [1, 2], "but a Ctrl-C after it is another request"
