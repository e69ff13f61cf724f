"""Intervals of means and of their differences, against SciPy and by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

from tianji_cli.bench.published.welch import (
    SampleMoments,
    difference_from_one,
    mean_difference,
    mean_interval,
    sample_of,
    t_quantile,
)

RNG = np.random.default_rng(11)


@pytest.mark.parametrize("freedom", [1.0, 1.3, 2.0, 2.77, 4.0, 9.5, 40.0, 1e4, math.inf])
def test_the_quantile_is_scipys(freedom: float):
    theirs = scipy.stats.norm.ppf(0.975)
    if math.isfinite(freedom):
        theirs = scipy.stats.t.ppf(0.975, freedom)
    assert t_quantile(freedom) == pytest.approx(theirs, abs=1e-6)


@pytest.mark.parametrize("count", [2, 3, 10])
def test_the_interval_of_a_mean_is_scipys(count: int):
    values = RNG.normal(size=count)
    ours = mean_interval(values.tolist())
    low, high = scipy.stats.t.interval(
        0.95, count - 1, loc=values.mean(), scale=scipy.stats.sem(values)
    )
    assert (ours.estimate, ours.low, ours.high) == pytest.approx((values.mean(), low, high))


@pytest.mark.parametrize(("count", "other"), [(2, 2), (3, 3), (5, 3), (12, 4)])
def test_the_interval_of_a_difference_is_scipys_of_welch(count: int, other: int):
    a, b = RNG.normal(size=count), RNG.normal(loc=1.0, scale=4.0, size=other)
    ours = mean_difference(sample_of(a.tolist()), sample_of(b.tolist()))
    theirs = scipy.stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    assert ours.estimate == pytest.approx(a.mean() - b.mean())
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high))


def test_a_prediction_holds_one_more_value_of_the_same_kind_95_times_in_100():
    draws = RNG.normal(loc=-150.0, scale=8.0, size=(2000, 6))
    held = [
        difference_from_one(sample_of(row[:5].tolist()), float(row[5])).contains(0.0)
        for row in draws
    ]
    assert np.mean(held) == pytest.approx(0.95, abs=0.02)


def test_an_inexact_value_widens_the_prediction():
    ours = SampleMoments(mean=1.0, variance=4.0, count=5)
    exact, inexact = (difference_from_one(ours, 0.0, error) for error in (0.0, 9.0))
    assert exact.high is not None
    assert inexact.high is not None
    assert inexact.high > exact.high


def test_without_any_spread_the_interval_is_the_difference():
    flat = SampleMoments(mean=-200.0, variance=0.0, count=3)
    same = mean_difference(flat, flat)
    assert (same.low, same.high) == (0.0, 0.0)
    less = mean_difference(flat, SampleMoments(mean=-190.0, variance=0.0, count=3))
    assert (less.low, less.high) == (-10.0, -10.0)
    assert mean_interval([7.0]).low is None
