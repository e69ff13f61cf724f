"""Writes what happened as JSON lines, the same for every system. Standard library, Python 3.7.

Every process that steps environments (or trains) writes a file of its own, so nothing is shared
and nothing waits. `t` is CLOCK_MONOTONIC, which all processes of one machine share.

    {"kind": "steps", "t": 12.5, "total": 4000}                     env steps of this process so far
    {"kind": "steps", "t": 12.5, "total": 4000, "agent_total": 12000}     of a team: its agents' too
    {"kind": "episode", "t": 12.5, "episode_return": 31.0, "length": 31}
    {"kind": "trained", "t": 12.5, "env_steps": 400, "samples": 3200, "updates": 16}      totals
    {"kind": "phase", "t": 12.5, "name": "imported"}
    {"kind": "claimed", "t": 12.5, "env_steps": 4000}               the system's own count of them
"""

from __future__ import annotations

import json
import os
import time

FLUSH_S = 0.1


class Recorder:
    """Appends records to `<directory>/<role>-<pid>.jsonl`.

    Args:
        directory: Must exist.
        role: `env` or `learner`, for people.
    """

    def __init__(self, directory: str, role: str) -> None:
        path = os.path.join(directory, f"{role}-{os.getpid()}.jsonl")
        self._file = open(path, "a")  # noqa: SIM115 - open as long as the process lives
        self._lines: list[str] = []
        self._flushed_s = 0.0
        self._total = 0
        self._agent_total = 0
        self._noted = 0

    def steps(self, count: int, num_agents: int | None = None) -> None:
        """Counts env steps; about every tenth of a second they are written.

        Args:
            count: How many.
            num_agents: How many agents of a team acted in each; None: it is no team.
        """
        self._total += count
        self._agent_total += count * (num_agents or 0)
        now_s = time.monotonic()
        if now_s - self._flushed_s >= FLUSH_S:
            self._flush(now_s)

    def episode(self, episode_return: float, length: int) -> None:
        """A finished episode: undiscounted sum of the environment's own rewards, env steps."""
        self._write("episode", episode_return=float(episode_return), length=int(length))

    def trained(self, env_steps: int, samples: int, updates: int) -> None:
        """Totals: env steps taken once each, samples with reuse, optimiser steps."""
        self._write("trained", env_steps=int(env_steps), samples=int(samples), updates=int(updates))
        self._flush(time.monotonic())

    def claimed(self, env_steps: int) -> None:
        """The system's own count of env steps, to be reconciled with the counted ones."""
        self._write("claimed", env_steps=int(env_steps))
        self._flush(time.monotonic())

    def phase(self, name: str) -> None:
        """A moment in the life of the system, such as `imported`."""
        self._write("phase", name=name)
        self._flush(time.monotonic())

    def flush(self) -> None:
        """Writes all remaining records."""
        self._flush(time.monotonic())

    def close(self) -> None:
        """Writes all remaining records and accepts no more."""
        self.flush()
        self._file.close()

    def _write(self, kind: str, **fields: object) -> None:
        record: dict[str, object] = {"kind": kind, "t": round(time.monotonic(), 6)}
        record.update(fields)
        self._lines.append(json.dumps(record))

    def _flush(self, now_s: float) -> None:
        if self._total != self._noted:
            of_team = {"agent_total": self._agent_total} if self._agent_total else {}
            self._write("steps", total=self._total, **of_team)
            self._noted = self._total
        if self._lines:
            self._file.write("\n".join(self._lines) + "\n")
            self._file.flush()
            self._lines = []
        self._flushed_s = now_s


_of_process: dict[tuple[int, str], Recorder] = {}


def recorder_of_process(role: str = "env") -> Recorder:
    """The one recorder of this process; a forked child gets its own."""
    directory = os.environ["TIANJI_BENCH_RAW"]
    key = (os.getpid(), role)
    if key not in _of_process:
        _of_process[key] = Recorder(directory, role)
    return _of_process[key]


class EpisodeCounter:
    """Counts one environment's steps and returns, whatever its wrapper's interface."""

    def __init__(self) -> None:
        self._return = 0.0
        self._length = 0

    def reset(self) -> None:
        """An episode that is cut by a reset was not finished and is not reported."""
        self._return = 0.0
        self._length = 0

    def step(self, reward: float, is_over: bool, num_agents: int | None = None) -> None:
        """One env step; `num_agents` is how many agents of a team acted in it."""
        recorder = recorder_of_process()
        self._return += float(reward)
        self._length += 1
        if is_over:
            recorder.episode(self._return, self._length)
            self.reset()
        recorder.steps(1, num_agents)
