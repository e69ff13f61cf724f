"""RLlib, SB3 and rejax themselves, where `tianji bench --install` has installed them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tianji_cli.bench.comparison.results import Cell
from tianji_cli.bench.systems.base import (
    CellPaths,
    Installed,
    SystemMissingError,
    SystemOptions,
    default_systems_dir,
)
from tianji_cli.bench.systems.raw import Claimed, EpisodeEnd, Phase, Steps, TrainedTotals
from tianji_cli.bench.systems.registry import SYSTEMS_BY_NAME
from tianji_cli.bench.systems.rejax import ENVIRONMENTS
from tianji_cli.bench.tasks.suite import Task, load_suite

pytestmark = [pytest.mark.slow, pytest.mark.processes]
WAIT_S = 180.0


def installed_or_skip(name: str, *tasks: Task) -> Installed:
    directory = Path(os.environ.get("TIANJI_PEERS", default_systems_dir()))
    try:
        return SYSTEMS_BY_NAME[name].prepare(SystemOptions(directory), tasks)
    except SystemMissingError:
        pytest.skip(f"{name} is not installed in {directory}")


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A short path, as `Job.scratch` has to be."""
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        yield Path(directory)


@pytest.mark.parametrize(
    ("name", "suite", "task_name", "settings"),
    [
        ("sb3", "cartpole", "ppo-400", []),
        ("sb3", "cartpole", "dqn", ["algorithm.min_replay_size=100"]),
        ("sb3", "minatar", "breakout", []),
        ("sb3", "continuous", "pendulum-sac", ["algorithm.min_replay_size=100"]),
        ("sb3", "continuous", "hopper-td3", ["algorithm.min_replay_size=100"]),
        ("rejax", "cartpole", "ppo-400", []),
        ("rejax", "cartpole", "dqn", ["algorithm.min_replay_size=100"]),
        ("rejax", "continuous", "pendulum-sac", ["algorithm.min_replay_size=100"]),
        ("rllib", "cartpole", "ppo-3200", []),
        ("rllib", "marl", "spread", []),
    ],
)
def test_a_real_system_trains_and_counts_as_its_environments_do(
    tmp_path, scratch, name, suite, task_name, settings
):
    changed = [f"tasks.{task_name}.{setting}" for setting in settings]
    task = load_suite(suite, changed).tasks[task_name]
    installed = installed_or_skip(name, task)
    system, paths = SYSTEMS_BY_NAME[name], CellPaths(tmp_path)
    paths.raw.mkdir()
    job = Cell(task=task_name, system=name, seed=1).job(task, scratch)
    paths.job.write_bytes(msgspec.json.encode(job))
    command = system.command(job, paths, installed)
    environment = {**os.environ, **command.env, "TIANJI_BENCH_RAW": str(paths.raw)}
    feed, records = system.feed(paths), []
    with subprocess.Popen(list(command.argv), env=environment) as process:
        until_s = time.monotonic() + WAIT_S
        while not trained_enough(records) and process.poll() is None:
            assert time.monotonic() < until_s, records[-5:]
            time.sleep(0.2)
            records += feed.poll()
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    records += feed.poll()
    assert trained_enough(records)
    assert [record.name for record in records if isinstance(record, Phase)][-1] == "stopped"
    counted = {record.source: record for record in records if isinstance(record, Steps)}
    steps = sum(record.total for record in counted.values())
    claimed = max(record.env_steps for record in records if isinstance(record, Claimed))
    # As in a benchmark, either way: a process that is killed has not written its last steps.
    assert abs(steps - claimed) <= task.algorithm.in_flight_steps
    totals = [record for record in records if isinstance(record, TrainedTotals)][-1]
    ratio = task.algorithm.samples_per_env_step
    assert totals.samples == pytest.approx(totals.env_steps * ratio, rel=0.1)
    episodes = [record for record in records if isinstance(record, EpisodeEnd)]
    assert all(record.length > 0 for record in episodes)
    if suite == "cartpole":
        assert all(record.episode_return == record.length for record in episodes)
    if suite == "marl":
        assert all(record.length == 25 for record in episodes)
        assert sum(record.agent_total for record in counted.values()) == 3 * steps


def trained_enough(records) -> bool:
    has_trained = any(isinstance(record, TrainedTotals) and record.samples for record in records)
    return has_trained and sum(isinstance(record, EpisodeEnd) for record in records) >= 2


SAME_STEPS = """
import json, sys
import gymnasium, gymnax, jax, numpy as np
env_id = sys.argv[1]
theirs, params = gymnax.make(env_id)
ours = gymnasium.make(env_id)
rng, key = np.random.default_rng(0), jax.random.PRNGKey(0)
worst, lengths = 0.0, []
for episode in range(5):
    ours.reset(seed=episode)
    observation, state = theirs.reset(key, params)
    inner = ours.unwrapped
    names = {
        "CartPole-v1": ("x", "x_dot", "theta", "theta_dot"),
        "Acrobot-v1": ("joint_angle1", "joint_angle2", "velocity_1", "velocity_2"),
        "Pendulum-v1": ("theta", "theta_dot"),
    }[env_id]
    values = {name: jax.numpy.float32(v) for name, v in zip(names, inner.state, strict=True)}
    state, length, is_over = state.replace(**values), 0, False
    while not is_over:
        action = ours.action_space.sample() if episode else rng.integers(0, 2)
        if env_id == "Pendulum-v1":
            action = rng.uniform(-2, 2, 1).astype(np.float32)
        else:
            action = int(rng.integers(0, ours.action_space.n))
        after, reward, terminated, truncated, _ = ours.step(action)
        _, state, value, end, cut, info = theirs.step(key, state, action, params)
        assert (bool(end), bool(cut)) == (terminated, truncated), (length, end, cut)
        worst = max(worst, abs(float(value) - reward))
        worst = max(worst, float(np.abs(np.asarray(info["final_observation"]) - after).max()))
        length, is_over = length + 1, terminated or truncated
        own = {name: jax.numpy.float32(v) for name, v in zip(names, inner.state, strict=True)}
        state = state.replace(**own)  # errors of float32 do not add up
    lengths.append(length)
print(json.dumps([worst, lengths]))
"""


@pytest.mark.parametrize("env_id", ENVIRONMENTS)
def test_gymnaxs_environments_step_as_gymnasiums_do(env_id):
    """From the same state with the same action: observation, reward and both ends."""
    python = installed_or_skip("rejax").python
    done = subprocess.run(
        [python, "-c", SAME_STEPS, env_id], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    worst, lengths = json.loads(done.stdout)
    assert worst < 1e-3
    assert max(lengths) <= 500
