"""Two runs at a time on the same hosts, begun and ended at random: none disturbs another.

    python tests/faults/two_runs.py --seed 1 --runs 20 --out DIR

Both share two hosts (this machine, twice), their range of ports, the results and the directory of
sockets. Each ends by itself, by Ctrl-C, by `down` after it was detached, or because its command is
killed; now and then a third command wants the name that a run has. Of each run its exit code, its
ledger, its files and what is left of it are judged.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

from engine.host.process_identity import find_marked  # noqa: E402
from tests.helpers.histories import check_histories  # noqa: E402
from tests.helpers.running import EAGER, rows  # noqa: E402

LIMIT_S = 120.0
GONE_S = 30.0
LOOK_S = 0.05
WAYS = ("by itself", "Ctrl-C", "down", "killed")
PORTS = range(44000, 45000)
INVENTORY = f"""\
version: 1
defaults: {{connection: local, address: 127.0.0.1, ports: {PORTS[0]}-{PORTS[-1]}}}
hosts: {{a: , b: }}
"""
OUTCOMES = {
    "by itself": (0, "ok", "env_steps"),
    "Ctrl-C": (130, "interrupted", "interrupted"),
    "down": (0, "interrupted", "interrupted"),
    "killed": (-signal.SIGKILL, "interrupted", "controller-lost"),
}
"""Exit code of `up`, and what the summary must say."""


@dataclass(frozen=True)
class Course:
    """What a run goes through.

    Attributes:
        name: Its id.
        way: How it ends.
        wait_s: After its first trained batch, until it is ended.
        is_coveted: Another command wants its name meanwhile.
    """

    name: str
    way: str
    wait_s: float
    is_coveted: bool


def draw(seed: int, num_runs: int) -> list[Course]:
    """The courses of all runs; equal seeds give equal ones."""
    dice = random.Random(seed)
    return [
        Course(f"run-{n}", dice.choice(WAYS), dice.uniform(0.0, 2.0), dice.random() < 0.3)
        for n in range(num_runs)
    ]


@dataclass
class Arena:
    """Where the runs take place.

    Attributes:
        out: Its directory; runs are in `out/results`.
        faults: What was not as it must be, by run.
        overlaps: How many others ran when a run began.
    """

    out: Path
    faults: list[str] = field(default_factory=list)
    overlaps: list[int] = field(default_factory=list)
    _now: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def play(self, course: Course) -> None:
        """One run from its begin to the end of its last process."""
        with self._lock:
            self.overlaps.append(self._now)
            self._now += 1
        try:
            self._play(course)
        except (AssertionError, subprocess.TimeoutExpired, OSError, ValueError) as error:
            self.faults.append(f"{course}: {error}")
        finally:
            with self._lock:
                self._now -= 1

    def _play(self, course: Course) -> None:
        run = self.out / "results" / course.name
        steps = 8000 if course.way == "by itself" else "null"
        words = ["--name", course.name, "-s", f"stop.env_steps={steps}", "-s", "stop.seconds=100"]
        if course.way == "down":
            words.append("-d")
        up = self._start("up", "hosts.yaml", "-s", "stop.return_threshold=null", *EAGER, *words)
        try:
            self._act(course, run, up)
            _, err = up.communicate(timeout=LIMIT_S)
        finally:
            if up.poll() is None:
                up.kill()
                up.communicate()
        code, status, reason = OUTCOMES[course.way]
        assert up.returncode == code, f"exit code {up.returncode}: {err}"
        if course.way == "down":
            self._end(course)
        _wait(lambda: not _marked(course.name), GONE_S, f"left: {_marked(course.name)}")
        summary = json.loads((run / "summary.json").read_text())
        assert (summary["status"], summary["stop_reason"]) == (status, reason), summary
        _check_books(run, summary)
        is_collected = json.loads((run / "deployment.json").read_text())["is_collected"]
        assert is_collected == (course.way != "killed")

    def _act(self, course: Course, run: Path, up: subprocess.Popen[str]) -> None:
        """What is done to a run while its command is there."""
        _wait(lambda: bool(rows(run, "consumption")) or up.poll() is not None, LIMIT_S, "it trains")
        if course.is_coveted:
            other = self._start("up", "hosts.yaml", "--name", course.name)
            _, err = other.communicate(timeout=LIMIT_S)
            assert other.returncode == 2, f"the other had exit code {other.returncode}: {err}"
        time.sleep(course.wait_s)
        if course.way in ("Ctrl-C", "killed"):
            assert up.poll() is None, f"it had ended before: {up.communicate()}"
            up.send_signal(signal.SIGINT if course.way == "Ctrl-C" else signal.SIGKILL)

    def _end(self, course: Course) -> None:
        down = self._start("down", course.name)
        _, err = down.communicate(timeout=LIMIT_S)
        assert down.returncode == 0, f"exit code of down {down.returncode}: {err}"

    def _start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "tianji_cli.main", *words],
            cwd=self.out,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), "TMPDIR": str(self.tmp)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @property
    def tmp(self) -> Path:
        """Of all runs: what is left there in the end is a fault."""
        return self.out / "tmp"


def _check_books(run: Path, summary: dict[str, Any]) -> None:
    collected, consumed, dropped, in_flight = (
        summary[f"env_steps_{name}"] for name in ("collected", "consumed", "dropped", "in_flight")
    )
    assert collected == consumed + dropped + in_flight, "the ledger does not balance"
    assert sum(int(str(row["env_steps"])) for row in rows(run, "production")) == collected
    assert sum(int(str(row["env_steps"])) for row in rows(run, "consumption")) == consumed


def _marked(name: str) -> list[int]:
    return [pid for pid, mark in find_marked().items() if mark.startswith(f"{name}@")]


def _wait(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, f"not within {timeout_s} s: {what}"
        time.sleep(LOOK_S)


def _listening() -> list[int]:
    """Ports of the range on which somebody of this machine listens."""
    return [
        item.laddr.port
        for item in psutil.net_connections("tcp")
        if item.status == psutil.CONN_LISTEN and item.laddr.port in PORTS
    ]


def play_all(seed: int, num_runs: int, out: Path, *, lanes: int = 2) -> Arena:
    """Plays all courses, so many at a time.

    Raises:
        AssertionError: A run was disturbed, or something is left.
    """
    arena = Arena(out)
    arena.tmp.mkdir(parents=True)
    (out / "hosts.yaml").write_text(INVENTORY)
    before = set(_listening())
    courses = iter(draw(seed, num_runs))
    lock = threading.Lock()

    def play_next() -> None:
        while True:
            with lock:
                course = next(courses, None)
            if course is None:
                return
            arena.play(course)

    threads = [threading.Thread(target=play_next) for _ in range(lanes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not arena.faults, "\n".join(arena.faults)
    assert not (left := os.listdir(arena.tmp)), left
    assert set(_listening()) <= before
    check_histories(out / "results")
    return arena


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--lanes", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True)
    wanted = parser.parse_args()
    began_s = time.monotonic()
    arena = play_all(wanted.seed, wanted.runs, wanted.out.absolute(), lanes=wanted.lanes)
    ways = Counter(course.way for course in draw(wanted.seed, wanted.runs))
    beside = sum(map(bool, arena.overlaps))
    print(
        f"{wanted.runs} runs in {time.monotonic() - began_s:.0f} s, {beside} begun beside another"
    )
    print(", ".join(f"{count} {way}" for way, count in ways.items()))


if __name__ == "__main__":
    main()
