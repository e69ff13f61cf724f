"""Merged rows: fewer of them, and every figure that is rebuilt from them stays what it was."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest
from msgspec import UNSET

from engine.spec import EnvSpec, StopSpec
from engine.testing import make_experiment
from engine.trace.reader import read_table
from engine.trace.records import (
    RECORD_TYPES,
    Consumption,
    Episode,
    Ledger,
    Production,
    Record,
    Replay,
    Staleness,
    WeightsPublished,
    table_of,
)
from engine.trace.summary import summarise_lag
from engine.trace.writer import TraceWriter
from tests.helpers.engine.inline_runs import Result, run


@pytest.fixture(scope="module")
def detailed(tmp_path_factory: pytest.TempPathFactory) -> Result:
    experiment = make_experiment(
        actors=3, env=EnvSpec(id="CartPole-v1", num_envs=4), stop=StopSpec(env_steps=3000)
    )
    return run(tmp_path_factory.mktemp("detailed") / "run", experiment)


@pytest.fixture(params=[0, 2_000], ids=["from the beginning", "after a while"])
def thinned(request: pytest.FixtureRequest, detailed: Result, tmp_path: Path) -> Path:
    """The same rows, written again by a writer that begins to merge after so many bytes."""
    with TraceWriter(tmp_path, detail_bytes=request.param) as writer:
        for kind in RECORD_TYPES:
            for row in read_table(detailed.trace, kind):
                writer.write([row])
    return tmp_path


def both(detailed: Result, thinned: Path, kind: type[Record]) -> tuple[list, list]:
    return read_table(detailed.trace, kind), read_table(thinned, kind)


def test_there_are_fewer_rows_but_every_episode(detailed: Result, thinned: Path):
    for kind in (Production, Consumption, Staleness, Ledger, WeightsPublished):
        before, after = both(detailed, thinned, kind)
        assert 0 < len(after) < len(before), table_of(kind)
    before, after = both(detailed, thinned, Episode)
    assert after == before


def test_sums_are_exact(detailed: Result, thinned: Path):
    for kind, names in (
        (Production, ("env_steps",)),
        (Consumption, ("env_steps", "samples_trained")),
        (Staleness, ("env_steps",)),
    ):
        before, after = both(detailed, thinned, kind)
        for name in names:
            assert sum(getattr(r, name) for r in after) == sum(getattr(r, name) for r in before)
    for name in ("collect_s", "wait_s"):
        before, after = both(detailed, thinned, Production)
        total = sum(getattr(row, name) for row in before)
        assert sum(getattr(row, name) for row in after) == pytest.approx(total)


def test_running_totals_grow_by_what_each_row_adds(detailed: Result, thinned: Path):
    total = trained = 0
    for row in read_table(thinned, Consumption):
        total, trained = total + row.env_steps, trained + row.samples_trained
        assert (row.env_steps_total, row.samples_trained_total) == (total, trained)
    last = read_table(thinned, Ledger)[-1]
    assert last == read_table(detailed.trace, Ledger)[-1]
    for row in read_table(thinned, Ledger):
        assert row.collected == row.consumed + row.dropped + row.in_flight


def test_the_lag_of_the_run_is_the_same(detailed: Result, thinned: Path):
    def lag(rows: list[Staleness]):
        counts: dict[int, int] = {}
        for row in rows:
            assert row.env_steps == sum(row.steps_by_lag.values())
            for value, steps in row.steps_by_lag.items():
                counts[value] = counts.get(value, 0) + steps
        return summarise_lag(counts)

    before, after = both(detailed, thinned, Staleness)
    assert lag(after) == lag(before) == detailed.summary.lag


def test_ages_of_replayed_samples_are_means_and_extremes_over_all(tmp_path: Path):
    """A row from before the first batch has no samples, hence no age."""
    ages = [(0, math.nan, math.nan), (100, 2.0, 9.0), (300, 1.0, 3.0), (0, math.nan, math.nan)]
    with TraceWriter(tmp_path, detail_bytes=0) as writer:
        for number, (samples, mean_s, max_s) in enumerate(ages):
            row = Replay(
                t_s=number * 0.1,
                buffer=0,
                env_steps=10,
                env_steps_total=10 * (number + 1),
                samples=samples,
                samples_total=samples,
                size_env_steps=10,
                replay_ratio=0.0,
                sample_age_mean_s=mean_s,
                sample_age_max_s=max_s,
            )
            writer.write([row])
    (merged,) = read_table(tmp_path, Replay)
    assert (merged.samples, merged.env_steps) == (400, 40)
    assert (merged.sample_age_mean_s, merged.sample_age_max_s) == (1.25, 9.0)


def merged_into_one(tmp_path: Path, *rows: Record) -> Record:
    with TraceWriter(tmp_path, detail_bytes=0) as writer:
        writer.write(list(rows))
    (merged,) = read_table(tmp_path, type(rows[0]))
    return merged


def staleness(env_steps: int, **more: object) -> Staleness:
    return Staleness(
        **{"t_s": 1.0, "learner": 0, "version": 3, "env_steps": env_steps, "lag_min": 0},
        **{"lag_mean": 0.0, "lag_p95": 0.0, "lag_max": 0, "steps_by_lag": {0: env_steps}},
        **{"age_mean_s": 0.1, "age_max_s": 0.2, **more},
    )  # type: ignore[arg-type]


def test_ratios_of_merged_batches_are_kept_by_lag(tmp_path: Path):
    first = staleness(
        10,
        **{"optimizer_lag_mean": 4.0, "optimizer_lag_max": 8, "ratio_batches": 1},
        **{"ratios_by_lag": {0: 10.0, 1: 30.0}, "ess_by_lag": {0: 1.0, 1: 0.5}},
        **{"clip_fraction_by_lag": {1: 0.25}, "behaviour_kl_by_lag": {1: 0.5}},
        **{"ratio_max_by_lag": {0: 1.5, 1: 3.0}, "log_ratio_first_by_lag": {1: 0.2}},
    )
    second = staleness(
        30,
        **{"optimizer_lag_mean": 8.0, "optimizer_lag_max": 9, "ratio_batches": 1},
        **{"ratios_by_lag": {1: 10.0, 2: 5.0}, "ess_by_lag": {1: 0.9, 2: 0.4}},
        **{"ratio_max_by_lag": {1: 2.0}, "log_ratio_first_by_lag": {1: 0.3}},
    )
    merged = merged_into_one(tmp_path, first, second, staleness(60))
    assert isinstance(merged, Staleness)
    assert merged.env_steps == 100
    assert (merged.optimizer_lag_mean, merged.optimizer_lag_max) == (7.0, 9)
    assert merged.ratio_batches == 2
    assert merged.ratios_by_lag == {0: 10.0, 1: 40.0, 2: 5.0}
    assert merged.ess_by_lag == {0: 1.0, 1: pytest.approx(0.6), 2: 0.4}
    assert (merged.clip_fraction_by_lag, merged.behaviour_kl_by_lag) == ({1: 0.25}, {1: 0.5})
    assert merged.ratio_max_by_lag == {0: 1.5, 1: 3.0}
    assert merged.log_ratio_first_by_lag == {1: 0.3}


def test_merged_batches_without_ratios_have_none(tmp_path: Path):
    merged = merged_into_one(tmp_path, staleness(10), staleness(30))
    assert isinstance(merged, Staleness)
    assert UNSET is merged.ratios_by_lag is merged.ratio_batches is merged.optimizer_lag_mean


def test_metrics_that_only_the_earlier_batch_reports_are_kept(tmp_path: Path):
    rows = [
        Consumption(
            **{"t_s": 1.0, "learner": 0, "version": 3, "env_steps": 10, "env_steps_total": 10},
            **{"samples_trained": 10, "samples_trained_total": 10, "updates_total": 1},
            **{"wait_s": 0.0, "update_s": 0.0, "metrics": metrics},
        )  # type: ignore[arg-type]
        for metrics in ({"loss": 1.0, "ess": 0.5}, {"loss": 2.0})
    ]
    merged = merged_into_one(tmp_path, *rows)
    assert isinstance(merged, Consumption)
    assert merged.metrics == {"loss": 2.0, "ess": 0.5}


def test_a_large_table_grows_with_time_and_not_with_work(tmp_path: Path):
    """A hundred hours of a thousand batches a second would take the space of one row a second."""
    with TraceWriter(tmp_path, detail_bytes=0) as writer:
        for number in range(20_000):
            row = Ledger(t_s=number * 0.001, collected=1, consumed=1, dropped=0, in_flight=0)
            writer.write([row])
    assert 19 <= len(read_table(tmp_path, Ledger)) <= 21
    shutil.rmtree(tmp_path)
