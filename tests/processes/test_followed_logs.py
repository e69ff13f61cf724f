"""`tianji logs -f`: each line when it is written, from a run that goes on meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, Queue

import pytest

from tests.helpers.paths import REPOSITORY
from tests.helpers.running import EAGER

pytestmark = pytest.mark.processes

WAIT_S = 60.0

MODULE = """
import os, time
from pathlib import Path
import gymnasium
from gymnasium.envs.classic_control import CartPoleEnv

HERE = Path(__file__).parent


class Speaking(CartPoleEnv):
    '''One of them says a line only when the one before was seen.'''

    num_steps = 0

    def step(self, action):
        self.num_steps += 1
        if self.num_steps == 20:
            self.speak()
        return super().step(action)

    def speak(self):
        try:
            os.close(os.open(HERE / "claim", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return
        for number in range(4):
            print(f"one says {number}")
            while not (HERE / f"seen-{number}").exists():
                time.sleep(0.02)


gymnasium.register("Speaking-v0", Speaking, max_episode_steps=200)
"""
EXPERIMENT = """
name: speaking
env: {id: "speaking:Speaking-v0"}
algorithm: {name: ppo, num_epochs: 1}
stop: {env_steps: 30000}
"""


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "tianji_cli.main", *words]


def surroundings() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(REPOSITORY)}


@contextmanager
def followed(directory: Path, *words: str) -> Iterator[tuple[Queue[str], subprocess.Popen[str]]]:
    """`tianji logs -f` and its lines as they come."""
    process = subprocess.Popen(
        command("logs", "-f", *words),
        cwd=directory,
        env=surroundings(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lines: Queue[str] = Queue()
    assert process.stdout is not None
    stream = process.stdout

    def read() -> None:
        with stream:
            for text in stream:
                lines.put(text.rstrip("\n"))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        yield lines, process
    finally:
        process.kill()
        process.wait()
        reader.join(10)


def next_with(lines: Queue[str], words: str) -> str:
    """The next line that holds these words."""
    seen = []
    while True:
        try:
            seen.append(lines.get(timeout=WAIT_S))
        except Empty:
            raise AssertionError(f"no line with {words!r} among {seen}") from None
        if words in seen[-1]:
            return seen[-1]


def test_lines_come_one_by_one_and_the_end_ends_it(tmp_path: Path) -> None:
    (tmp_path / "speaking.py").write_text(MODULE)
    (tmp_path / "speaking.yaml").write_text(EXPERIMENT)
    up = subprocess.run(
        command("up", "-x", "speaking.yaml", "-d", "--name", "r", "-s", "actors=2", *EAGER),
        cwd=tmp_path,
        env=surroundings(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert up.returncode == 0, up.stderr
    try:
        with followed(tmp_path, "r", "actor", "-n", "100") as (lines, process):
            speakers = set()
            for number in range(4):
                said = next_with(lines, f"one says {number}")
                speakers.add(said.partition(" | ")[0])
                (tmp_path / f"seen-{number}").touch()
            assert len(speakers) == 1
            assert speakers <= {"actor-0@localhost", "actor-1@localhost"}
            next_with(lines, "the run has ended")
            assert process.wait(30) == 0
    finally:
        for number in range(4):
            (tmp_path / f"seen-{number}").touch()
        subprocess.run(
            command("down", "r"), cwd=tmp_path, env=surroundings(), timeout=60, check=False
        )
