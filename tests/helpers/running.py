"""A real `tianji` command, and what tests ask of it and of its run."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.helpers.paths import REPOSITORY

EAGER = ("-s", "learner.compile=off")
"""A compiler beside the run would only take processor time from it."""
SHORT_ENV_STEPS = 2800
SHORT = (*EAGER, "-s", f"stop.env_steps={SHORT_ENV_STEPS}", "-s", "stop.return_threshold=null")
"""Seven batches of `cartpole_ppo`."""
EASY = (*EAGER, "-s", "algorithm.num_epochs=1", "-s", "env.step_latency_ms=4")
"""Ten batches of `cartpole_ppo` a second, which leaves the processors to what a test is about."""
IDLE_S = 60.0
"""Processes that have not taken the least processor time for so long are stuck."""
ENDLESS = (
    *EAGER,
    *("-s", "stop.env_steps=null"),
    *("-s", "stop.return_threshold=null"),
    *("-s", "stop.seconds=300"),
)


@dataclass
class Command:
    """A running `tianji`.

    Attributes:
        cwd: Its working directory.
        process: The command itself.
        family: Every descendant that was ever seen.
    """

    cwd: Path
    process: subprocess.Popen[str]
    family: set[psutil.Process] = field(default_factory=set)

    def look(self) -> None:
        """Remembers all present descendants."""
        try:
            self.family.update(psutil.Process(self.process.pid).children(recursive=True))
        except psutil.NoSuchProcess:
            return

    def alive(self) -> list[psutil.Process]:
        """Remembered descendants that still run; a zombie has nothing left to do."""
        return [p for p in self.family if p.is_running() and _status(p) != psutil.STATUS_ZOMBIE]

    def role(self, address: str) -> psutil.Process:
        """The process of a role, by the name that it shows."""
        self.look()
        return next(p for p in self.alive() if p.name() == f"tj-{address}"[:15])

    def wait_for(self, is_so: Callable[[], bool], what: str, work_s: float = 60.0) -> None:
        """Waits until something is so that this command's processes work towards.

        On a busy machine that may take any time, so it is their own work that is limited.

        Args:
            is_so: Asked again and again: the outside world sends this test no events.
            what: For the error.
            work_s: How much processor time all of them may take; none for `IDLE_S` is too little.
        """
        worked_s: dict[psutil.Process, float] = {}
        so_far_s, moved_s, look_s = 0.0, time.monotonic(), 0.0
        while not is_so():
            assert self.process.poll() is None, f"it has ended before: {what}\n{self.end()}"
            now_s = time.monotonic()
            if now_s >= look_s:
                look_s = now_s + 0.5
                self.look()
                worked_s |= {process: _cpu_s(process) for process in self.alive()}
            if sum(worked_s.values()) > so_far_s:
                so_far_s, moved_s = sum(worked_s.values()), now_s
            assert so_far_s < work_s, f"{so_far_s:.0f} s of work did not do: {what}"
            assert now_s - moved_s < IDLE_S, f"nothing of it works, nor is it so: {what}"
            time.sleep(0.02)

    def end(self, timeout_s: float = 30) -> tuple[int, str, str]:
        """Waits for the command; returns exit code, standard output, standard error."""
        out, err = self.process.communicate(timeout=timeout_s)
        return self.process.returncode, out, err


def run_tianji(
    directory: Path, *words: str, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs `tianji` in a directory to its end, without a terminal.

    Args:
        directory: Its working directory.
        words: Its arguments.
        env: All of its variables; None means those of this process, without colours.
    """
    return subprocess.run(
        [sys.executable, "-m", "tianji_cli.main", *words],
        cwd=directory,
        env={"NO_COLOR": "1", **os.environ} if env is None else env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def start_tianji(directory: Path, *words: str) -> subprocess.Popen[str]:
    """Starts `tianji` in a directory, without a terminal; the caller reads what it says."""
    return subprocess.Popen(
        [sys.executable, "-m", "tianji_cli.main", *words],
        cwd=directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "NO_COLOR": "1"},
    )


def summary_of_up(
    directory: Path, *words: str, env: Mapping[str, str] | None = None
) -> dict[str, object]:
    """Runs `tianji up` in a directory to its end, and gives the summary that it prints.

    Args:
        directory: Its working directory.
        words: Its arguments.
        env: Variables beside those of this process.
    """
    done = subprocess.run(
        [sys.executable, "-m", "tianji_cli.main", "--json", "-q", "up", *words],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **(env or {})},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    summary: dict[str, object] = json.loads(done.stdout)
    return summary


def _status(process: psutil.Process) -> str:
    try:
        return str(process.status())
    except psutil.NoSuchProcess:
        return psutil.STATUS_ZOMBIE


def _cpu_s(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)


def wait_for(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Polls the outside world, which sends this test no events.

    Args:
        condition: Asked again and again.
        timeout_s: On a calm machine. One that is busy, or stands still for seconds, gets as long as
            what hangs: `IDLE_S`.
        what: For the error.
    """
    longest_s = max(timeout_s, IDLE_S)
    deadline = time.monotonic() + longest_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {longest_s} s: {what}"
        time.sleep(0.02)


def rows(run: Path, table: str) -> list[dict[str, object]]:
    """The rows of a trace table that are there so far."""
    path = run / "trace" / f"{table}.jsonl"
    lines = path.read_text().splitlines() if path.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


@contextmanager
def no_new_descriptor() -> Iterator[None]:
    """What the block opens it has closed in the end; what others have dropped may go meanwhile."""
    gc.collect()
    num_open = psutil.Process().num_fds()
    yield
    gc.collect()
    assert psutil.Process().num_fds() <= num_open
