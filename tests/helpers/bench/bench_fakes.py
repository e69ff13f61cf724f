"""Fake systems, as real processes, and results without any process."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from tianji_cli.bench.comparison.measure import Figures
from tianji_cli.bench.comparison.results import Cell, CellResult
from tianji_cli.bench.machine import Load
from tianji_cli.bench.systems.base import DriverSystem, Installed, SystemOptions
from tianji_cli.bench.tasks.suite import Suite, SystemOverrides, Task
from tianji_cli.bench.tasks.work import BenchEnv, BenchPpo, Judging

FAKE = Path(__file__).parent / "fake_system.py"

PPO = BenchPpo(
    learning_rate=3e-4,
    discount=0.99,
    gae_lambda=0.95,
    clip_range=0.2,
    entropy_coefficient=0.01,
    value_coefficient=0.5,
    max_gradient_norm=0.5,
    batch_steps=400,
    minibatch_steps=200,
    num_epochs=8,
)


def make_task(systems: Sequence[str] = ("tianji", "rllib"), **changes: object) -> Task:
    """A task whose limits are short enough for a test."""
    settings: dict[str, object] = {
        "env": BenchEnv(id="CartPole-v1"),
        "algorithm": PPO,
        "rollout_steps": 25,
        "threshold": 100.0,
        "judge": Judging(window=10, sustained_episodes=1),
        "budget_s": 1.0,
        "start_s": 20.0,
        "stall_s": 1.0,
        "systems": {system: SystemOverrides() for system in systems},
    }
    return Task(**{**settings, **changes})  # type: ignore[arg-type]


def make_suite(task: Task | None = None, seeds: int = 2) -> Suite:
    return Suite(
        name="made", summary="made for a test", seeds=seeds, tasks={"t": task or make_task()}
    )


class FakeSystem(DriverSystem):
    """Behaves as told; the name must be one that suites know."""

    title = "fake"

    def __init__(self, name: str, behaviour: str) -> None:
        self.name = name
        self.drivers = {"ppo": str(FAKE)}  # type: ignore[misc]
        self.behaviour = behaviour

    def prepare(self, options: SystemOptions, tasks: Sequence[Task] = ()) -> Installed:
        return Installed(python=sys.executable, versions={"fake": "1"})

    def command(self, job, paths, installed):  # type: ignore[no-untyped-def]
        command = super().command(job, paths, installed)
        return type(command)([*command.argv, self.behaviour], command.env, command.unset)


def result_of(
    system: str,
    seed: int,
    *,
    time_s: float | None = 10.0,
    rate: float = 1000.0,
    outcome: str | None = None,
    budget_s: float = 60.0,
    machine: str = "m",
    busy: float = 0.0,
) -> CellResult:
    """A result; `time_s` None is a run that missed the threshold."""
    figures = Figures(
        first_sample_s=2.0,
        reached_s=None if time_s is None else 2.0 + time_s,
        time_to_threshold_s=time_s,
        steps_to_threshold=None if time_s is None else 1000,
        trained_s=budget_s if time_s is None else time_s + 1.0,
        last_sample_s=62.0,
        env_steps=5000,
        collect_per_s=rate,
    )
    return CellResult(
        cell=Cell(task="t", system=system, seed=seed),
        outcome=outcome or ("censored" if time_s is None else "reached"),  # type: ignore[arg-type]
        figures=figures,
        started_at="2026-01-31T00:00:00+00:00",
        machine_id=machine,
        load=Load(average_1min=0.1, busy_cores=busy),
    )
