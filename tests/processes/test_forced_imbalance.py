"""The bound on lag is real: held with production forced to ten times consumption and the reverse.

Nothing sleeps in place of work. A learner is made slow by many epochs over each batch (IMPALA,
which takes one gradient step for a batch, by a wide network), actors are made slow by an
environment that takes its time. That the imbalance was there is read from the traces of the very
run: what actors collect per second of collecting against what the learner trains per second of
training, waiting left out on both sides.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.helpers.running import EAGER, rows
from tianji_cli.analysis.check import rebuild_counters
from tianji_cli.analysis.run import RunData, load_run
from tianji_cli.storage.run_dir import RunPaths

pytestmark = [pytest.mark.processes, pytest.mark.slow]

FORCED = 10
BOUND = 1
STEPS = 80
"""Env steps of a rollout; each batch is one rollout, so that versions go by fast."""
PPO = (
    *(f"algorithm.{name}={STEPS}" for name in ("batch_steps", "minibatch_steps")),
    *("algorithm.rollout_steps=10", "env.num_envs=8", "actors=4"),
    "stop.return_threshold=null",
)
FAST_PRODUCTION = (*PPO, "algorithm.num_epochs=40", f"stop.env_steps={40 * STEPS}")
FAST_CONSUMPTION = (
    *PPO,
    *("algorithm.num_epochs=1", "env.step_latency_ms=25", f"stop.env_steps={30 * STEPS}"),
)
MANY = "staleness.max_queued_rollouts=1000"
"""Room for all that unbounded actors collect meanwhile: ten times what is consumed."""


def bounded(mode: str) -> tuple[str, str]:
    return f"staleness.mode={mode}", f"staleness.max_lag={BOUND}"


def train(tianji, tmp_path: Path, experiment: str, *settings: str) -> tuple[dict, RunData]:
    """A run over processes whose books balance, row by row and against its summary."""
    words = [word for setting in settings for word in ("-s", setting)]
    command = tianji("--json", "-q", "up", "--name", "run", "-x", experiment, *EAGER, *words)
    code, out, err = command.end(120)
    assert code == 0, err
    run = load_run(RunPaths(tmp_path / "results" / "run"))
    assert rebuild_counters(run) == []
    for row in run.ledger:
        assert row.collected == row.consumed + row.dropped + row.in_flight
    assert not [row for row in run.events if row.kind == "restarted"]
    return json.loads(out), run


def capacity_ratio(run: RunData) -> float:
    """What the actors could collect over what the learner could train, in env steps."""
    collect_per_s = 0.0
    for actor in {row.actor for row in run.production}:
        own = [row for row in run.production if row.actor == actor and row.sent]
        collect_per_s += sum(row.env_steps for row in own) / sum(row.collect_s for row in own)
    train_per_s = sum(row.env_steps for row in run.consumption) / sum(
        row.update_s for row in run.consumption
    )
    return collect_per_s / train_per_s


def oldest(run: RunData) -> int:
    """Lag of the oldest trained step, from the histogram of every batch."""
    assert len(run.staleness) == len(run.consumption) >= 25
    return max(max(row.steps_by_lag) for row in run.staleness)


@pytest.mark.parametrize("mode", ["block", "drop"])
def test_the_bound_holds_when_production_is_ten_times_consumption(tianji, tmp_path, mode):
    _, run = train(tianji, tmp_path, "cartpole_ppo", *FAST_PRODUCTION, *bounded(mode))
    assert capacity_ratio(run) >= FORCED
    assert oldest(run) <= BOUND
    waited_s = sum(row.wait_s for row in run.production)
    assert waited_s > sum(row.collect_s for row in run.production), "actors were held back"


def test_without_a_bound_the_same_production_exceeds_it(tianji, tmp_path):
    settings = (*FAST_PRODUCTION, "staleness.mode=unbounded", MANY)
    summary, run = train(tianji, tmp_path, "cartpole_ppo", *settings)
    assert summary["env_steps_collected"] >= FORCED * summary["env_steps_consumed"]
    assert capacity_ratio(run) >= FORCED
    assert oldest(run) > 10 * BOUND


@pytest.mark.parametrize("mode", ["block", "drop"])
def test_the_bound_holds_when_consumption_is_ten_times_production(tianji, tmp_path, mode):
    _, run = train(tianji, tmp_path, "cartpole_ppo", *FAST_CONSUMPTION, *bounded(mode))
    assert capacity_ratio(run) <= 1 / FORCED
    assert oldest(run) <= BOUND
    waited_s = sum(row.wait_s for row in run.consumption)
    assert waited_s > sum(row.update_s for row in run.consumption), "the learner was kept waiting"


def test_without_a_bound_the_same_consumption_exceeds_it(tianji, tmp_path):
    settings = (*FAST_CONSUMPTION, "staleness.mode=unbounded")
    _, run = train(tianji, tmp_path, "cartpole_ppo", *settings)
    assert capacity_ratio(run) <= 1 / FORCED
    assert oldest(run) > BOUND, "four actors at once, and a batch is one rollout"


WIDE = ("network.hidden_sizes=[1024,1024]", "algorithm.rollout_steps=5", "algorithm.batch_steps=40")


def test_correction_has_no_bound_and_weighs_what_is_old(tianji, tmp_path):
    """`correct` promises no bound, but that old samples count for less, and that none is lost."""
    settings = (*WIDE, MANY, "actors=4", "stop.env_steps=2000", "stop.return_threshold=null")
    summary, run = train(tianji, tmp_path, "cartpole_impala", *settings)
    assert capacity_ratio(run) >= 2
    assert oldest(run) > 10 * BOUND
    assert summary["env_steps_dropped"] == 0
    last = run.consumption[-1].metrics["rho_mean"]
    assert last < 0.999, "the mean importance weight of old samples"
    assert len(rows(run.paths.root, "weights")) == len(run.consumption) + 1
