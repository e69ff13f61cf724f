"""Sample Factory's asynchronous PPO, in a virtual environment of its own."""

from __future__ import annotations

from typing import ClassVar

from tianji_cli.bench.systems.base import Deviations
from tianji_cli.bench.systems.probe import GAMES, TORCH, VenvBaseline
from tianji_cli.bench.tasks.suite import LAG_BOUND, Task
from tianji_cli.bench.tasks.work import BenchIppo


class SampleFactory(VenvBaseline):
    """`APPO`; rollout workers are its workers, inference has a process of its own."""

    name = "sample-factory"
    title = "Sample Factory"
    drivers: ClassVar = {"ppo": "sample_factory_appo.py"}
    packages = (
        TORCH,
        "sample-factory==2.1.1",
        "gymnasium==0.29.1",
        "numpy==1.26.4",
        "ale-py==0.10.1",
        *GAMES,
    )
    modules = ("sample_factory", "torch", "gymnasium", "ale_py", "minatar")
    caveats = (
        "Sample Factory runs under Gymnasium 0.29, the newest that it supports; the dynamics of"
        " the classic environments are the same.",
        "Sample Factory gets Atari from Gymnasium's preprocessing, the others from ale-py's own.",
        "Sample Factory acts for its workers in one process more than others have.",
    )

    def refusal(self, task: Task) -> str | None:
        if isinstance(task.algorithm, BenchIppo):
            return "Sample Factory is not set up for several agents here"
        return super().refusal(task)

    def deviations(self, task: Task) -> Deviations:
        return {
            LAG_BOUND: ("different", "1000 optimiser steps, its default"),
            "value loss clipping": ("equal", "off; 1.0 by default"),
            "bootstrap at truncation": ("equal", "value_bootstrap"),
        }
