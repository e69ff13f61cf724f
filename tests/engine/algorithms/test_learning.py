"""Every algorithm learns: whole runs in one thread, a few seconds each, through all roles."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.spec import (
    Scalar,
)
from engine.trace.reader import read_table
from engine.trace.records import Consumption, Episode, Ledger, Replay, Staleness
from tests.helpers.engine.learning_runs import PPO, make_run, run_inline

IMPALA = {"name": "impala", "learning_rate": 2e-3, "max_gradient_norm": 1.0, "batch_steps": 160}
DQN = {
    "name": "dqn",
    "discount": 0.98,
    "n_step": 3,
    "min_replay_size": 500,
    "epsilon_decay_env_steps": 3000,
    "target_update_period": 16,
    "target_update_rate": 0.2,
}


@pytest.mark.parametrize(
    ("algorithm", "env_steps", "gain"),
    [
        (PPO, 20_000, 2.0),
        (IMPALA, 30_000, 2.0),
        (DQN, 8_000, 2.0),
        ({**DQN, "name": "apex"}, 8_000, 1.5),  # some of its actors go on exploring a lot
    ],
    ids=["ppo", "impala", "dqn", "apex"],
)
def test_it_learns(algorithm: dict[str, Scalar], env_steps: int, gain: float, tmp_path: Path):
    summary = run_inline(make_run(algorithm, env_steps), tmp_path)
    assert summary.status == "ok", summary.error
    episodes = read_table(tmp_path / "trace", Episode)
    first = sum(row.episode_return for row in episodes[:20]) / 20
    assert first < 60
    assert summary.return_mean is not None
    assert summary.return_mean > gain * first


def test_replay_holds_its_ratio_and_balances_its_books(tmp_path: Path):
    summary = run_inline(make_run({**DQN, "prioritized": True}, 3_000), tmp_path)
    trace = tmp_path / "trace"
    rows = read_table(trace, Replay)
    assert sum(row.env_steps for row in rows) == summary.env_steps_consumed
    assert rows[-1].samples_total == sum(row.samples for row in rows)
    batch, rollout = 32 * 16, 16 * 4
    trained_steps = summary.env_steps_consumed - 500
    assert abs(rows[-1].samples_total - 8 * trained_steps) <= 2 * batch + 8 * rollout * 3
    assert summary.replay_ratio == pytest.approx(
        summary.samples_trained / summary.env_steps_collected
    )
    for row in read_table(trace, Ledger):
        assert row.collected == row.consumed + row.dropped + row.in_flight
    assert sum(row.env_steps for row in read_table(trace, Consumption)) == 0
    staleness = read_table(trace, Staleness)
    assert all(row.env_steps == batch for row in staleness)
    assert max(row.lag_max for row in staleness) > 10, "old samples are meant here"
    assert all(row.age_max_s >= row.age_mean_s >= 0 for row in staleness)


@pytest.mark.parametrize("algorithm", [IMPALA, {**DQN, "prioritized": True}], ids=["impala", "dqn"])
def test_equal_seeds_give_equal_runs(algorithm: dict[str, Scalar], tmp_path: Path):
    found = []
    for name in ("one", "other"):
        run_inline(make_run(algorithm, 2_000), tmp_path / name)
        rows = read_table(tmp_path / name / "trace", Consumption)
        found.append([(row.env_steps, row.samples_trained, row.metrics) for row in rows])
    assert found[0]
    assert found[0] == found[1]
