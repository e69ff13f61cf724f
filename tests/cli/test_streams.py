"""Whatever standard output is, a command ends with words and a documented exit code."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engine.errors import ConfigError
from tests.helpers.paths import REPOSITORY
from tianji_cli.interrupts import Interrupts
from tianji_cli.storage.run_dir import resolve_run

ROOT = REPOSITORY
FULL = Path("/dev/full")


def shell(line: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[bytes]:
    """Runs a line in which `tianji` is the command line."""
    program = f'tianji() {{ "{sys.executable}" -m tianji_cli "$@"; }}; {line}'
    return subprocess.run(
        ["bash", "-c", program],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", **env},
        capture_output=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A run with a log, as far as `logs` and `runs` need one."""
    root = tmp_path / "results" / "ünï"
    (root / "logs" / "here").mkdir(parents=True)
    (root / "logs" / "here" / "actor-0.log").write_text("who – is · it?\n")
    (root / "manifest.json").write_text("{}")
    part = {
        "host": {"name": "here", "connection": "local", "address": "", "ports": None},
        "python": "/p",
        "source": "/s",
        "run_dir": str(root),
    }
    document = {"schema_version": 1, "run_id": "ünï", "is_collected": True, "parts": [part]}
    (root / "deployment.json").write_text(json.dumps(document))
    return tmp_path


@pytest.mark.parametrize("words", ["version", "version --json", "status", "status --json", "logs"])
def test_a_closed_standard_output_is_no_error(results: Path, words: str) -> None:
    done = shell(f"tianji {words} >&-", results)
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("words", ["version", "version --json", "status", "status --json", "logs"])
def test_a_full_standard_output_is_said_in_words(results: Path, words: str) -> None:
    if not FULL.exists():
        pytest.skip("there is no /dev/full here")
    done = shell(f"tianji {words} >/dev/full", results)
    assert done.returncode == 3, done.stderr
    assert b"error: it cannot be written: No space left on device" in done.stderr
    assert b"where: standard output" in done.stderr
    assert b"Traceback" not in done.stderr
    assert b"Exception ignored" not in done.stderr


@pytest.mark.parametrize("words", ["version", "status --json", "logs"])
def test_who_has_read_enough_sees_no_error(results: Path, words: str) -> None:
    done = shell(f"set -o pipefail; tianji {words} | true", results)
    assert done.returncode in (0, 1)  # 0 if `true` took longer to end than we to write
    assert done.stderr == b""


@pytest.mark.parametrize("words", ["status", "logs"])
def test_a_terminal_that_knows_only_ascii_is_told_all_the_same(results: Path, words: str) -> None:
    done = shell(f"tianji {words}", results, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert rb"\xfc" in done.stdout or rb"\u2013" in done.stdout


def test_json_is_utf_8_whatever_the_terminal_knows(results: Path) -> None:
    done = shell("tianji status --json", results, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["run_id"] == "ünï"


def _all_of(controller: int) -> bytes:
    """What was written to a terminal that is closed by now: the kernel hands it over in parts."""
    said = b""
    with contextlib.suppress(OSError):  # EIO: it is closed, and all has been read
        while part := os.read(controller, 4096):
            said += part
    os.close(controller)
    return said


@pytest.mark.parametrize("words", [("--no-color",), ()], ids=["option", "variable"])
def test_plain_text_is_plain_on_a_terminal(words: tuple[str, ...], tmp_path: Path) -> None:
    controller, terminal = os.openpty()
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color"}
    env |= {} if words else {"NO_COLOR": "1"}
    command = [sys.executable, "-m", "tianji_cli", *words, "status", "nothing"]
    try:
        subprocess.run(command, cwd=tmp_path, env=env, stderr=terminal, timeout=60, check=False)
    finally:
        os.close(terminal)
    said = _all_of(controller)
    assert b"no such run" in said
    assert b"\x1b" not in said


def test_ctrl_c_while_libraries_are_read_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text(
        "import pathlib, time\npathlib.Path('reading').touch()\ntime.sleep(30)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "tianji_cli", "version"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    deadline_s = time.monotonic() + 20
    while not (tmp_path / "reading").exists():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=10)
    assert process.returncode == -signal.SIGINT  # 130, as a shell counts it
    assert errors == b""


def test_a_hangup_that_nohup_ignores_stays_ignored() -> None:
    earlier = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        interrupts = Interrupts()
        with interrupts.installed():
            os.kill(os.getpid(), signal.SIGHUP)
        assert interrupts.count == 0
    finally:
        signal.signal(signal.SIGHUP, earlier)


def test_an_empty_name_is_no_beginning_of_a_run(results: Path) -> None:
    with pytest.raises(ConfigError, match="no such run: ''"):
        resolve_run(results / "results", "")
