"""The statistics against SciPy, rliable and known answers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

from tianji_cli.bench.statistics import (
    bootstrap_iqm,
    coefficient_of_variation,
    iqm,
    kaplan_meier,
    paired_ratio,
    restricted_mean,
    restricted_ratio,
    survival_median,
    wilson,
)

RNG = np.random.default_rng(7)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 8, 11, 40])
def test_iqm_is_scipys_and_rliables(count):
    values = RNG.lognormal(size=count)
    assert iqm(values.tolist()) == pytest.approx(scipy.stats.trim_mean(values, 0.25))
    metrics = pytest.importorskip("rliable.metrics")
    assert iqm(values.tolist()) == pytest.approx(metrics.aggregate_iqm(values))


def test_the_interval_of_the_iqm_is_scipys_percentile_bootstrap():
    values = RNG.lognormal(size=12)
    ours = bootstrap_iqm(values.tolist())
    theirs = scipy.stats.bootstrap(
        (values,),
        lambda data, axis: scipy.stats.trim_mean(data, 0.25, axis=axis),
        method="percentile",
        n_resamples=20_000,
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert ours.low == pytest.approx(theirs.low, rel=0.03)
    assert ours.high == pytest.approx(theirs.high, rel=0.03)


def test_the_interval_of_a_paired_ratio_is_scipys_on_the_logarithms():
    ours, theirs = RNG.lognormal(3.0, 0.2, size=10), RNG.lognormal(2.0, 0.2, size=10)
    value = paired_ratio(ours.tolist(), theirs.tolist())
    logs = np.log(ours / theirs)
    interval = scipy.stats.bootstrap(
        (logs,), np.mean, method="percentile", n_resamples=20_000, rng=np.random.default_rng(1)
    ).confidence_interval
    assert value.estimate == pytest.approx(scipy.stats.gmean(ours / theirs))
    assert math.log(value.low) == pytest.approx(interval.low, abs=0.02)
    assert math.log(value.high) == pytest.approx(interval.high, abs=0.02)


def test_a_paired_ratio_turned_round_is_its_inverse():
    ours, theirs = [10.0, 12.0, 9.0], [5.0, 5.5, 6.0]
    forth, back = paired_ratio(ours, theirs), paired_ratio(theirs, ours)
    assert forth.estimate == pytest.approx(1 / back.estimate)
    assert forth.low == pytest.approx(1 / back.high, rel=0.01)
    assert not forth.contains(1.0)


def test_pairing_takes_out_what_a_block_has_in_common():
    drift = np.array([1.0, 3.0, 9.0, 27.0])
    value = paired_ratio((2 * drift).tolist(), drift.tolist())
    assert (value.low, value.high) == (pytest.approx(2.0), pytest.approx(2.0))


def test_one_block_has_no_interval():
    value = paired_ratio([4.0], [2.0])
    assert (value.estimate, value.low, value.high) == (pytest.approx(2.0), None, None)
    assert value.contains(1.0)
    assert bootstrap_iqm([3.0]).low is None


@pytest.mark.parametrize(("successes", "total"), [(0, 5), (1, 5), (5, 5), (7, 20), (99, 100)])
def test_wilson_is_scipys(successes, total):
    theirs = scipy.stats.binomtest(successes, total).proportion_ci(method="wilson")
    ours = wilson(successes, total)
    assert ours.low == pytest.approx(theirs.low)
    assert ours.high == pytest.approx(theirs.high)


def test_kaplan_meier_is_scipys():
    times = RNG.integers(1, 12, size=30).astype(float)
    reached = RNG.random(30) < 0.6
    data = scipy.stats.CensoredData.right_censored(times, ~reached)
    theirs = scipy.stats.ecdf(data).sf
    for step in kaplan_meier(times.tolist(), reached.tolist()):
        assert step.share == pytest.approx(float(theirs.evaluate(step.t_s)))


def test_the_restricted_mean_is_the_area_below_the_curve():
    times, reached = [3.0, 5.0, 8.0, 10.0], [True, False, True, False]
    curve = kaplan_meier(times, reached)
    grid = np.linspace(0, 10, 100_001)
    shares = np.array([[s.share for s in curve if s.t_s <= t][-1] for t in grid[::100]])
    assert restricted_mean(curve, 10.0) == pytest.approx(shares.mean() * 10, rel=0.01)


def test_the_restricted_mean_without_censoring_is_the_mean_of_clipped_times():
    times = [3.0, 5.0, 20.0]
    curve = kaplan_meier(times, [True] * 3)
    assert restricted_mean(curve, 10.0) == pytest.approx((3 + 5 + 10) / 3)


def test_the_median_is_none_when_half_of_the_runs_never_arrive():
    assert survival_median(kaplan_meier([1.0, 9.0, 9.0], [True, False, False])) is None
    assert survival_median(kaplan_meier([1.0, 2.0, 9.0], [True, True, False])) == 2.0


def test_the_restricted_ratio_counts_a_miss_as_the_horizon():
    value = restricted_ratio([60.0, 60.0, 40.0], [10.0, 10.0, 10.0], 50.0)
    assert value.estimate == pytest.approx((50 + 50 + 40) / 30)
    assert value.low <= value.estimate <= value.high


def test_spread_is_the_sample_standard_deviation_over_the_mean():
    values = [9.0, 10.0, 11.0]
    assert coefficient_of_variation(values) == pytest.approx(scipy.stats.variation(values, ddof=1))
    assert coefficient_of_variation([1.0]) is None


def test_equal_data_gives_equal_intervals():
    values = RNG.lognormal(size=9).tolist()
    assert bootstrap_iqm(values) == bootstrap_iqm(values)
