"""`tianji attach` on a real detached run of this machine: left, and followed to its end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.helpers.paths import REPOSITORY
from tests.helpers.running import EASY, ENDLESS

pytestmark = pytest.mark.processes


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "tianji_cli.main", *words]


def surroundings() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(REPOSITORY)}


def tianji(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*words),
        cwd=directory,
        env=surroundings(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@contextmanager
def attached(directory: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    """`tianji attach` once it has shown how far the run is."""
    process = subprocess.Popen(
        command("attach", *words),
        cwd=directory,
        env=surroundings(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        assert "Ctrl-C leaves it running" in process.stderr.readline()
        assert "env steps" in process.stderr.readline()
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_detached_run_is_left_and_followed_to_its_end(tmp_path: Path) -> None:
    up = tianji(tmp_path, "up", "-d", "--name", "mine", *ENDLESS, *EASY)
    try:
        assert up.returncode == 0, up.stderr
        assert "tianji attach mine" in up.stderr
        with attached(tmp_path, "mine") as left:
            left.send_signal(signal.SIGINT)
            _, said = left.communicate(timeout=60)
            assert left.returncode == 130
            assert "run mine continues; tianji attach mine shows it again" in said
        status = json.loads(tianji(tmp_path, "status", "mine", "--json").stdout)
        assert status["phase"] == "running"
        assert all(role["is_alive"] for role in status["roles"].values())
        refused = tianji(tmp_path, "runs", "--delete", "mine", "--yes")
        assert (refused.returncode, "still runs" in refused.stderr) == (2, True)
        with attached(tmp_path, "mine", "--json") as followed:
            assert tianji(tmp_path, "down", "mine").returncode == 0
            shown, said = followed.communicate(timeout=60)
            assert followed.returncode == 130, said
            assert json.loads(shown)["status"] == "interrupted"
    finally:
        tianji(tmp_path, "down", "mine")
    assert tianji(tmp_path, "attach", "mine").returncode == 130, "its outcome can be asked again"
    assert tianji(tmp_path, "runs", "--delete", "mine", "--yes").returncode == 0
    assert not (tmp_path / "results" / "mine").exists()
