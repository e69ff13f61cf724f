"""Runs the real command in a directory of its own and knows which processes belong to it."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.helpers.histories import check_histories
from tests.helpers.running import EASY, ENDLESS, Command, rows

HERE = Path(__file__).resolve().parent
OWN_PATH = os.pathsep.join(map(str, (HERE / "user_modules", HERE.parents[1])))
"""Broken environments, saboteurs and the metered one; this checkout, whatever is installed."""


@pytest.fixture
def tianji(tmp_path: Path) -> Iterator[Callable[..., Command]]:
    """Starts `tianji` with arguments and added variables; what is left of it is killed later.

    Whatever a test did to its runs, their traces must tell a history that can have happened.
    """
    commands: list[Command] = []

    def start(*arguments: str, max_descriptors: int | None = None, **env: str) -> Command:
        def limit() -> None:
            if max_descriptors is not None:
                resource.setrlimit(resource.RLIMIT_NOFILE, (max_descriptors, max_descriptors))

        process = subprocess.Popen(
            [sys.executable, "-m", "tianji_cli.main", *arguments],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            preexec_fn=limit if max_descriptors is not None else None,
            env={**os.environ, "PYTHONPATH": OWN_PATH, "NO_COLOR": "1", **env},
        )
        commands.append(Command(tmp_path, process))
        return commands[-1]

    yield start
    for command in commands:
        command.look()
        for process in (*command.alive(), command.process):
            try:
                process.send_signal(signal.SIGKILL)
            except (psutil.NoSuchProcess, ProcessLookupError):
                continue
        command.process.communicate()
    check_histories(tmp_path / "results")


@pytest.fixture
def training(tianji: Callable[..., Command], tmp_path: Path) -> Command:
    """An endless run named `run` in which every role has begun to work."""
    command = tianji("up", "--name", "run", *ENDLESS, *EASY)
    run = tmp_path / "results" / "run"
    command.wait_for(lambda: len(rows(run, "consumption")) > 10, "training is under way")
    command.look()
    assert len(command.alive()) >= 7, "supervisor, forkserver and five roles"
    return command
