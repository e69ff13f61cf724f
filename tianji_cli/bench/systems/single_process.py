"""The plain loop: one process, one file per algorithm, as a person would write it first.

It is in the manner of CleanRL, whose files are no package that could be installed (the one of that
name on PyPI wants Python below 3.11), so `--compare cleanrl` means it, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from engine.wording import plural
from tianji_cli.bench.systems.base import (
    Deviations,
    DriverSystem,
    Installed,
    SystemOptions,
    initial_weights,
)
from tianji_cli.bench.systems.probe import probe_here
from tianji_cli.bench.tasks.suite import LAG_BOUND, Task


class SingleProcess(DriverSystem):
    """Runs in TianJi's own interpreter, but imports nothing of TianJi."""

    name = "single-process"
    title = "single process"
    drivers: ClassVar = {name: f"single_process_{name}.py" for name in ("ppo", "dqn", "sac", "td3")}
    caveats = (
        "A plain loop of about a hundred lines; it exists to show what distribution costs. It is"
        " written in CleanRL's manner, but with the task's settings: CleanRL's own files do not"
        " bootstrap at truncation in PPO, and their DQN is not double and has a squared loss.",
    )

    def prepare(self, options: SystemOptions, tasks: Sequence[Task] = ()) -> Installed:
        return probe_here(["torch", "gymnasium"])

    def deviations(self, task: Task) -> Deviations:
        total = task.workers * task.envs_per_worker
        words = f"one process steps {plural(total, 'environment')} and learns"
        rows: Deviations = {
            "workers": ("different", words),
            LAG_BOUND: ("different", "0: it collects and learns by turns"),
        }
        if task.algorithm_name in ("sac", "td3"):
            rows = {**rows, **initial_weights(task, "uniform", "PyTorch's own")}
        else:
            rows = {**rows, **initial_weights(task, "orthogonal", "orthogonal")}
        if task.algorithm_name == "ppo":
            return rows
        return {**rows, "rollout_steps": ("different", "learns after every step of all")}
