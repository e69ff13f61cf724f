"""Runs a plain loop until it is asked to stop (SIGINT or SIGTERM)."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from counted_env import make_counted
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from recorder import recorder_of_process


class Loop(Protocol):
    """A trainer and its totals."""

    num_steps: int
    num_samples: int
    num_updates: int

    def advance(self) -> None:
        """Collects a little and learns from it."""
        ...


def make_envs(task: dict[str, Any], mode: AutoresetMode) -> SyncVectorEnv:
    """All environments of the task, stepped one after the other."""
    count = task["workers"] * task["envs_per_worker"]
    return SyncVectorEnv([lambda: make_counted(task["env"])] * count, autoreset_mode=mode)


def run(make_loop: Callable[[dict[str, Any], int], Loop]) -> None:
    """Trains until a signal comes.

    Args:
        make_loop: Called with the resolved task of `job.json` and the seed.
    """
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    stopping: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _frame: stopping.append(received))
    recorder = recorder_of_process()
    torch.set_num_threads(job["task"]["threads"])
    recorder.phase("imported")
    loop = make_loop(job["task"], job["seed"])
    while not stopping:
        before = loop.num_updates
        loop.advance()
        if loop.num_updates > before:
            recorder.trained(loop.num_steps, loop.num_samples, loop.num_updates)
    recorder.phase("stopped")
    recorder.close()
