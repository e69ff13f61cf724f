"""A soak in shortened form: after many rollouts every process has what it had after a few."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.helpers.running import ENDLESS, wait_for

pytestmark = [pytest.mark.processes, pytest.mark.slow]

WARM_UP, LATER = 300, 1300
"""Rollouts."""
MAX_GROWTH_BYTES = 4 * 2**20
"""Of one process between the two. If a single rollout were never given back, the 1000 rollouts of
9 KiB alone would be more."""
SMALL = (
    *("-s", "env.num_envs=4", "-s", "algorithm.rollout_steps=64", "-s", "algorithm.num_epochs=1"),
    *("-s", "algorithm.batch_steps=512", "-s", "algorithm.minibatch_steps=512"),
)
ROLES = ("coordinator", "actor-0", "actor-1", "buffer-0", "learner-0", "supervisor", "forkserver")


def num_rollouts(run: Path) -> int:
    table = run / "trace/production.jsonl"
    return table.read_bytes().count(b"\n") if table.exists() else 0


def test_memory_and_descriptors_stay_flat(tianji, tmp_path):
    run = tmp_path / "results/run"
    command = tianji("up", "--name", "run", *SMALL, *ENDLESS)
    wait_for(lambda: num_rollouts(run) >= WARM_UP, 90, "warm")
    processes = {name: command.role(name) for name in ROLES}
    before = {name: (p.num_fds(), p.memory_info().rss) for name, p in processes.items()}
    wait_for(lambda: num_rollouts(run) >= LATER, 200, "many rollouts")
    after = {name: (p.num_fds(), p.memory_info().rss) for name, p in processes.items()}
    for name in ROLES:
        assert after[name][0] <= before[name][0] + 1, f"{name}: descriptors {before} {after}"
        grown = after[name][1] - before[name][1]
        assert grown <= MAX_GROWTH_BYTES, f"{name} has grown by {grown / 2**20:.1f} MiB"
    command.process.send_signal(signal.SIGINT)
    assert command.end()[0] == 130
