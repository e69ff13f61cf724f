"""What a run costs that mostly waits for its environments: next to nothing."""

from __future__ import annotations

import time
from pathlib import Path

import psutil
import pytest

from tests.helpers.running import Command, rows, wait_for

pytestmark = [pytest.mark.processes, pytest.mark.slow]

ACTORS = 8
WINDOW_S = 60.0
MAX_CORES = 0.05
COLD_STEP_S = 370e-6
"""What a step of these environments costs where the limit above holds.

A step that begins after a sleep finds its caches cold, and so does all else in an idle run. On a
shared machine they are colder still, by a factor that changes within minutes and is the same for
both; so the limit grows and shrinks with the step.
"""
SLOW = (
    *("-s", f"actors={ACTORS}"),
    *("-s", "env.id=Metered-v0", "-s", "modules=[metered_env]"),
    *("-s", "env.step_latency_ms=100"),
    *("-s", "stop.env_steps=null", "-s", "stop.return_threshold=null", "-s", "stop.seconds=600"),
)


def used_s(command: Command) -> float:
    """Processor time of the command and of every process that it started, so far."""
    command.look()
    processes = [psutil.Process(command.process.pid), *command.alive()]
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def used_by_environments(directory: Path) -> tuple[float, int]:
    """Their processor time in seconds, and the number of their steps."""
    last = [file.read_text().splitlines()[-1].split() for file in directory.iterdir()]
    return sum(float(used_s) for used_s, _ in last), sum(int(steps) for _, steps in last)


def knows_what_is_compiled(run: Path) -> bool:
    """Whether each actor and the learner has said what there is; then nobody compiles any more."""
    said = [
        log.read_text() for kind in ("actor", "learner") for log in run.glob(f"logs/*/{kind}-*.log")
    ]
    return sum("acting: " in text or "optimiser steps: " in text for text in said) == ACTORS + 1


def test_eight_actors_with_slow_environments_use_a_twentieth_of_a_core(
    tianji, tmp_path, monkeypatch
):
    meters = tmp_path / "meters"
    meters.mkdir()
    monkeypatch.setenv("METERED_DIR", str(meters))
    command = tianji("up", "--name", "run", *SLOW)
    run = tmp_path / "results" / "run"
    command.wait_for(lambda: len(rows(run, "consumption")) >= 2, "training under way")
    wait_for(lambda: knows_what_is_compiled(run), 400, "everything compiled")
    before_s, (before_env_s, before_steps) = used_s(command), used_by_environments(meters)
    begin_s, collected = time.monotonic(), len(rows(run, "production"))
    time.sleep(WINDOW_S)
    span_s = time.monotonic() - begin_s
    after_env_s, after_steps = used_by_environments(meters)
    env_s = after_env_s - before_env_s
    step_s = env_s / (after_steps - before_steps)
    cores = (used_s(command) - before_s - env_s) / span_s
    rollouts = len(rows(run, "production")) - collected
    assert rollouts >= 0.2 * span_s, "50 steps of 0.1 s each, two of them under way"
    said = f"{cores:.4f} cores outside the environments, {1e6 * step_s:.0f} us a step in them"
    assert cores / MAX_CORES < step_s / COLD_STEP_S, said
