"""Analysis: small tables in, checked by hand or against a slow, obvious computation."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
import numpy as np
import pytest

from engine.trace.columns import Table
from engine.trace.records import (
    RECORD_TYPES,
    Consumption,
    Episode,
    Event,
    Ledger,
    Production,
    Staleness,
    table_of,
)
from engine.trace.summary import steady_rate_per_s
from tests.helpers.synthetic_run import WINDOW, write_rows, write_synthetic_run
from tianji_cli.analysis.check import num_checks, rebuild_counters, warnings_of
from tianji_cli.analysis.convergence import episode_curve, moving_mean, threshold_crossing
from tianji_cli.analysis.curves import curves_of
from tianji_cli.analysis.rebuild import rebuild_summary
from tianji_cli.analysis.run import RunData, load_run
from tianji_cli.analysis.staleness import lag_counts, lag_histogram, lag_over_time
from tianji_cli.analysis.tables import to_frame
from tianji_cli.analysis.throughput import rates_over_time, steady_rates


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunData:
    return load_run(write_synthetic_run(tmp_path_factory.mktemp("analysis") / "run"))


def changed(run: RunData, **changes: object) -> RunData:
    """The same run with other tables or another summary."""
    values = {name: getattr(run, name) for name in run.__dataclass_fields__}
    return RunData(**{**values, **changes})


def with_summary(run: RunData, **changes: object) -> RunData:
    return changed(run, summary=msgspec.structs.replace(run.summary, **changes))


def episodes(returns: list[float]) -> list[Episode]:
    return [
        Episode(
            t_s=float(index),
            actor=0,
            episode_return=value,
            length_env_steps=1,
            version=0,
            env_steps_collected=10 * index,
        )
        for index, value in enumerate(returns)
    ]


@pytest.mark.parametrize("record_type", RECORD_TYPES, ids=table_of)
def test_an_empty_table_still_has_its_columns_and_types(record_type):
    frame = to_frame([], record_type)
    assert len(frame) == 0
    assert frame["t_s"].dtype == "float64"


def test_rows_are_sorted_by_time_and_remember_when_they_arrived():
    rows = [Ledger(t_s=t, collected=1, consumed=1, dropped=0, in_flight=0) for t in (2.0, 1.0)]
    frame = to_frame(rows, Ledger)
    assert frame["t_s"].tolist() == [1.0, 2.0]
    assert frame.index.tolist() == [1, 0]


def test_metrics_become_columns(run: RunData):
    frame = to_frame(run.consumption, Consumption)
    assert frame["metric.loss"].iloc[1] == 0.5


@pytest.mark.parametrize(("num_values", "window"), [(0, 3), (2, 3), (3, 3), (50, 7), (9, 1)])
def test_the_moving_mean_is_the_mean_of_the_last_values(num_values: int, window: int):
    values = np.sin(np.arange(num_values)) * 100
    wanted = [values[max(0, i + 1 - window) : i + 1].mean() for i in range(num_values)]
    np.testing.assert_allclose(moving_mean(values, window), wanted)


def test_the_threshold_needs_a_full_window():
    curve = episode_curve(episodes([100.0, 0.0, 0.0, 90.0, 90.0]), window=3)
    crossing = threshold_crossing(curve, 60.0)
    assert crossing is not None
    assert (crossing.t_s, crossing.env_steps) == (4.0, 40)
    assert threshold_crossing(curve, 61.0) is None
    assert threshold_crossing(curve, None) is None


def test_a_curve_is_in_the_order_in_which_episodes_were_heard_of():
    late, early = episodes([1.0, 3.0])[::-1]
    rows = Table(Episode)
    for row in (late, early):
        rows.append(row)
    for heard in (rows, [late, early]):
        curve = episode_curve(heard, window=2)
        assert curve["t_s"].tolist() == [1.0, 1.0]
        assert curve["env_steps"].tolist() == [10, 10]
        assert curve["episode_return"].tolist() == [3.0, 1.0]
        assert curve["return_mean"].tolist() == [3.0, 2.0]
        assert curve["is_full"].tolist() == [False, True]
    assert len(episode_curve([])) == 0


def test_rates_add_up_to_what_was_collected(run: RunData):
    production = to_frame(run.production, Production)
    consumption = to_frame(run.consumption, Consumption)
    rates = rates_over_time(production, consumption, run.end_s)
    edges = [0.0]
    for middle in rates["t_s"]:
        edges.append(2 * middle - edges[-1])
    for column, table in (("collect_per_s", production), ("consume_per_s", consumption)):
        assert (rates[column] * np.diff(edges)).sum() == pytest.approx(table["env_steps"].sum())


def test_steady_rates_count_rows_as_they_arrived():
    """The coordinator sums rows in file order, even where their times are not in order."""
    rows = [
        Production(
            t_s=t,
            actor=0,
            epoch=0,
            sequence=0,
            env_steps=steps,
            env_steps_total=0,
            version_min=0,
            version_max=0,
            collect_s=0.1,
            wait_s=0.0,
        )
        for t, steps in ((0.0, 5), (2.0, 10), (1.9, 20), (10.0, 40))
    ]
    rates = steady_rates(to_frame(rows, Production), to_frame([], Consumption))
    points = [(0.0, 5), (2.0, 15), (1.9, 35), (10.0, 75)]
    assert rates["collect_per_s"] == steady_rate_per_s(points)
    assert rates["consume_per_s"] is None


def stale(t_s: float, steps_by_lag: dict[int, int]) -> Staleness:
    steps = sum(steps_by_lag.values())
    return Staleness(
        t_s=t_s,
        learner=0,
        version=0,
        env_steps=steps,
        lag_min=min(steps_by_lag),
        lag_mean=sum(lag * n for lag, n in steps_by_lag.items()) / steps,
        lag_p95=float(max(steps_by_lag)),
        lag_max=max(steps_by_lag),
        steps_by_lag=steps_by_lag,
        age_mean_s=0.5 * t_s,
        age_max_s=t_s,
    )


def test_the_lag_histogram_is_weighted_by_env_steps():
    rows = [stale(1.0, {0: 30, 3: 10}), stale(2.0, {0: 60})]
    assert lag_counts(rows) == {0: 90, 3: 10}
    table = lag_histogram(rows)
    assert table["lag"].tolist() == [0, 1, 2, 3]
    assert table["share"].tolist() == pytest.approx([0.9, 0.0, 0.0, 0.1])


def test_lag_over_time_keeps_mean_and_extremes_when_it_bins():
    rows = [stale(t / 10, {t % 3: 10, t % 3 + 2: 30}) for t in range(1, 1001)]
    frame = to_frame(rows, Staleness)
    table = lag_over_time(frame, end_s=100.0)
    assert len(table) <= 210
    assert table["lag_max"].max() == 4
    assert table["lag_min"].min() == 0
    assert table["lag_mean"].mean() == pytest.approx(frame["lag_mean"].mean(), abs=0.02)


def test_a_sound_run_agrees_with_its_traces(run: RunData):
    assert rebuild_counters(run) == []
    assert run.summary is not None
    assert warnings_of(run, run.summary, []) == []
    assert num_checks(run) == (23, len(run.ledger))


@pytest.mark.parametrize(
    "name",
    [
        "env_steps_collected",
        "env_steps_consumed",
        "env_steps_dropped",
        "env_steps_in_flight",
        "samples_trained",
        "updates",
        "weights_version",
        "episodes",
        "steps_to_threshold",
        "restarts",
        "return_mean",
        "collect_per_s",
        "consume_per_s",
        "trained_per_s",
        "balance",
    ],
)
def test_each_wrong_counter_is_found(run: RunData, name: str):
    wrong = getattr(run.summary, name) * 1.01 + 1
    (found,) = rebuild_counters(with_summary(run, **{name: wrong}))
    assert (found.where, found.name, found.written) == ("summary.json", name, wrong)
    assert found.rebuilt == pytest.approx(getattr(run.summary, name))


def test_a_wrong_lag_or_time_or_verdict_is_found(run: RunData):
    assert run.summary is not None
    lag = msgspec.structs.replace(run.summary.lag, max=7)
    assert [d.name for d in rebuild_counters(with_summary(run, lag=lag))] == ["lag.max"]
    late_s = (run.summary.time_to_threshold_s or 0.0) + 5
    (found,) = rebuild_counters(with_summary(run, time_to_threshold_s=late_s))
    assert found.name == "time_to_threshold_s"
    missed = with_summary(run, reached=False, time_to_threshold_s=None, steps_to_threshold=None)
    assert len(rebuild_counters(missed)) == 3


def test_an_unbalanced_ledger_row_is_found(run: RunData):
    ledger = list(run.ledger)
    ledger[4] = msgspec.structs.replace(ledger[4], in_flight=5)
    (found,) = rebuild_counters(changed(run, ledger=ledger))
    assert found.where == "trace/ledger.jsonl:5"
    assert found.rebuilt == found.written + 5


def test_a_ledger_that_balances_but_is_wrong_is_found(run: RunData):
    last = run.ledger[-1]
    more = msgspec.structs.replace(last, collected=last.collected + 8, consumed=last.consumed + 8)
    names = {d.name for d in rebuild_counters(changed(run, ledger=[*run.ledger[:-1], more]))}
    assert names == {"collected", "consumed"}


def test_a_lost_row_shows_in_the_running_totals(run: RunData):
    found = rebuild_counters(changed(run, consumption=[*run.consumption[:3], *run.consumption[4:]]))
    assert ("trace/consumption.jsonl:4", "env_steps_total") in {(d.where, d.name) for d in found}


def test_a_histogram_that_lacks_steps_is_found(run: RunData):
    rows = [*run.staleness[:-1], msgspec.structs.replace(run.staleness[-1], env_steps=1)]
    (found,) = rebuild_counters(changed(run, staleness=rows))
    assert found.name == "env_steps = sum of steps_by_lag"


def test_the_time_to_threshold_is_when_the_coordinator_stopped(run: RunData):
    stop = Event(t_s=5.0, kind="stopping", host="", role="coordinator", detail="return_threshold")
    assert rebuild_summary(changed(run, events=[stop])).time_to_threshold_s == 5.0


def test_a_run_without_summary_is_rebuilt(run: RunData):
    rebuilt = rebuild_summary(changed(run, summary=None))
    assert run.summary is not None
    assert rebuilt.status == "interrupted"
    for name in ("env_steps_collected", "lag", "collect_per_s", "steps_to_threshold", "env_id"):
        assert getattr(rebuilt, name) == getattr(run.summary, name)
    assert rebuild_counters(changed(run, summary=None)) == []


def test_warnings_name_what_a_reader_must_know(run: RunData):
    broken = with_summary(
        run, status="failed", error="learner-0 was killed", reached=False, restarts=2
    )
    lag = msgspec.structs.replace(broken.summary.lag, max=3)
    broken = with_summary(broken, lag=lag)
    text = "\n".join(warnings_of(broken, broken.summary, rebuild_counters(broken)))
    for word in ("learner-0 was killed", "450 was not reached", "above the bound", "the run: 2"):
        assert word in text
    assert "contradict" in text


def test_curves_of_a_run_with_a_single_row_of_anything(tmp_path: Path):
    paths = write_synthetic_run(tmp_path / "run", num_batches=1, has_summary=False)
    for table in ("episodes", "production", "consumption", "staleness", "ledger", "weights"):
        (paths.trace / f"{table}.jsonl").unlink()
    run = load_run(paths)
    summary = rebuild_summary(run)
    assert summary.env_steps_collected == 0
    assert summary.return_mean is None
    curves = curves_of(run, summary, "empty")
    assert curves.window == WINDOW
    assert all(len(t) == 0 for t in (curves.episodes, curves.rates, curves.lags, curves.histogram))


def test_returns_that_are_not_numbers_do_not_stop_the_analysis(tmp_path: Path):
    paths = write_synthetic_run(tmp_path / "run", num_batches=3, has_summary=False)
    nan = Episode(t_s=0.5, actor=0, episode_return=math.nan, length_env_steps=1, version=0)
    write_rows(paths.trace, [nan])
    assert math.isnan(rebuild_summary(load_run(paths)).return_mean or 0.0)
