"""Whole runs in one thread: the books balance, the bound holds, equal seeds give equal traces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.progress import Progress
from engine.runtime.inline import InlineRun
from engine.spec import EnvSpec, StalenessSpec, StopSpec
from engine.testing import SCRIPTED_ENV, make_experiment
from engine.trace.checkpoint_choice import choose_checkpoint
from engine.trace.reader import read_table
from engine.trace.records import (
    Consumption,
    Episode,
    Ledger,
    Production,
    Staleness,
    WeightsPublished,
)
from engine.trace.records import Event as TraceEvent
from tests.helpers.engine.inline_runs import Result, run

BATCH = 80
"""Steps and resets in one batch."""


@pytest.fixture(scope="module", params=["block", "drop", "unbounded"])
def finished(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """Three actors on real environments; batches of two rollouts."""
    experiment = make_experiment(
        actors=3,
        env=EnvSpec(id="CartPole-v1", num_envs=4),
        staleness=StalenessSpec(mode=request.param, max_lag=1),
        stop=StopSpec(env_steps=3000),
    )
    return run(tmp_path_factory.mktemp(request.param) / "run", experiment)


def test_the_run_ends_well(finished: Result):
    summary = finished.summary
    assert (summary.status, summary.error, summary.stop_reason) == ("ok", None, "env_steps")
    assert 3000 <= summary.env_steps_consumed < 3000 + BATCH
    kinds = [row.kind for row in read_table(finished.trace, TraceEvent)]
    assert kinds == [*["joined"] * 5, "started", "stopping", "checkpoint", "ended"]


def test_the_ledger_balances_in_every_row_and_in_the_summary(finished: Result):
    rows = read_table(finished.trace, Ledger)
    assert len(rows) > 30
    for row in rows:
        assert row.collected == row.consumed + row.dropped + row.in_flight, row
        assert min(row.collected, row.consumed, row.dropped, row.in_flight) >= 0
    last, summary = rows[-1], finished.summary
    assert last.collected == summary.env_steps_collected
    assert last.consumed == summary.env_steps_consumed
    assert last.dropped == summary.env_steps_dropped
    assert last.in_flight == summary.env_steps_in_flight


def test_the_tables_sum_up_to_the_summary_to_the_step(finished: Result):
    summary = finished.summary
    production = read_table(finished.trace, Production)
    consumption = read_table(finished.trace, Consumption)
    staleness = read_table(finished.trace, Staleness)
    assert sum(row.env_steps for row in production) == summary.env_steps_collected
    assert sum(row.env_steps for row in consumption) == summary.env_steps_consumed
    assert sum(row.samples_trained for row in consumption) == summary.samples_trained
    assert sum(row.env_steps for row in staleness) == summary.env_steps_consumed
    assert consumption[-1].env_steps_total == summary.env_steps_consumed
    assert consumption[-1].updates_total == summary.updates
    assert len(read_table(finished.trace, Episode)) == summary.episodes
    assert read_table(finished.trace, WeightsPublished)[-1].version == summary.weights_version
    assert summary.weights_version == len(consumption)


def test_each_actor_counts_its_own_steps_without_a_gap(finished: Result):
    for actor in range(3):
        rows = [row for row in read_table(finished.trace, Production) if row.actor == actor]
        total = 0
        for sequence, row in enumerate(rows):
            total += row.env_steps
            assert (row.sequence, row.env_steps_total) == (sequence, total)


def test_the_final_checkpoint_is_that_of_the_last_version(finished: Result):
    version = finished.summary.weights_version
    found = choose_checkpoint(finished.root / "checkpoints", "last").info
    assert found.version == version
    assert found.counters.env_steps_consumed == finished.summary.env_steps_consumed


@pytest.mark.parametrize("mode", ["block", "drop"])
@pytest.mark.parametrize("max_lag", [0, 1, 3])
def test_no_step_is_trained_older_than_the_bound(tmp_path: Path, mode: str, max_lag: int):
    experiment = make_experiment(actors=3, staleness=StalenessSpec(mode=mode, max_lag=max_lag))
    result = run(tmp_path / "run", experiment)
    lags = [row.lag_max for row in read_table(result.trace, Staleness)]
    assert max(lags) <= max_lag
    assert result.summary.lag.max == max(lags)
    assert result.summary.status == "ok"
    if mode == "block":
        assert result.summary.env_steps_dropped == 0


def test_a_run_without_staleness_is_on_policy(tmp_path: Path):
    experiment = make_experiment(actors=2, staleness=StalenessSpec(max_lag=0))
    summary = run(tmp_path / "run", experiment).summary
    assert (summary.lag.min, summary.lag.max) == (0, 0)


def test_equal_seeds_give_equal_traces_and_other_seeds_others(tmp_path: Path):
    def trace(name: str, seed: int) -> dict[str, list[Any]]:
        env = EnvSpec(id="CartPole-v1", num_envs=4)
        experiment = make_experiment(seed=seed, actors=2, env=env, stop=StopSpec(env_steps=1500))
        return run(tmp_path / name, experiment).rows_without_times()

    one, other, different = trace("one", 5), trace("other", 5), trace("different", 6)
    for table, rows in one.items():
        assert rows == other[table], table
    assert one["consumption"] != different["consumption"]
    assert one["episodes"] != different["episodes"]


def test_the_run_ends_at_the_return_threshold(tmp_path: Path):
    stop = StopSpec(return_threshold=5.9, return_window=10)
    summary = run(tmp_path / "run", make_experiment(stop=stop)).summary
    assert (summary.status, summary.stop_reason) == ("ok", "return_threshold")
    assert summary.reached
    assert summary.steps_to_threshold is not None
    assert summary.steps_to_threshold <= summary.env_steps_collected


def test_a_request_ends_the_run_in_good_order(tmp_path: Path):
    """The first progress is shown before the first step, so the run is interrupted at once."""
    shown: list[Progress] = []

    def stop(inline: InlineRun, progress: Progress) -> None:
        shown.append(progress)
        inline.request_stop()

    stop_never = StopSpec(return_threshold=1e9)
    result = run(tmp_path / "run", make_experiment(stop=stop_never), stop)
    assert shown
    assert result.summary.status == "interrupted"
    assert result.summary.error is None
    (row,) = read_table(result.trace, Ledger)
    assert row.collected == row.consumed + row.dropped + row.in_flight


def test_an_actor_learns_in_the_scripted_environment(tmp_path: Path):
    """Action 1 earns a bonus at every step, so the return of an episode of 3 goes from 6 to 9."""
    experiment = make_experiment(
        env=EnvSpec(id=SCRIPTED_ENV, num_envs=4, kwargs={"bonus": 1.0}),
        stop=StopSpec(env_steps=6000),
        learning_rate=1e-2,
        num_epochs=2,
    )
    result = run(tmp_path / "run", experiment)
    shares = [
        (row.episode_return - row.length_env_steps * (row.length_env_steps + 1) / 2)
        / row.length_env_steps
        for row in read_table(result.trace, Episode)
    ]
    assert sum(shares[:50]) / 50 < 0.75
    assert sum(shares[-50:]) / 50 > 0.9
