"""Rates, curves and histograms of rows that come one by one, in bounded memory."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tianji_cli.watch.tallies import (
    FIRST_WIDTH_S,
    MAX_BARS,
    MAX_LAGS,
    MIN_RATE_ROWS,
    NUM_BINS,
    RATE_WINDOW_S,
    LagCounts,
    RecentRate,
    ReturnBins,
    SumBins,
)

TIMES = st.lists(st.floats(0.0, 1e5), min_size=1, max_size=200)


def test_a_steady_stream_has_its_rate():
    rate = RecentRate()
    for i in range(1000):
        rate.add(i * 0.1, 50)
    assert rate.per_s(99.9) == pytest.approx(500.0)


def test_a_rate_is_that_of_the_last_seconds():
    rate = RecentRate()
    for i in range(100):
        rate.add(float(i), 1000)
    for i in range(100, 200):
        rate.add(float(i), 10)
    assert rate.per_s(199.0) == pytest.approx(10.0)
    assert len(rate._rows) <= RATE_WINDOW_S + 2


def test_a_rate_falls_while_nothing_comes():
    rate = RecentRate()
    for i in range(20):
        rate.add(float(i), 100)
    now, later, much_later = (rate.per_s(t_s) for t_s in (19.0, 29.0, 1e6))
    assert now == pytest.approx(100.0)
    assert later == pytest.approx(50.0, rel=0.1)
    assert much_later is not None
    assert much_later < 0.01


def test_rollouts_that_take_longer_than_the_window_have_a_rate_too():
    rate = RecentRate()
    for i in range(30):
        rate.add(60.0 * i, 6000)
    assert rate.per_s(60.0 * 29) == pytest.approx(100.0)
    assert len(rate._rows) == MIN_RATE_ROWS


def test_a_rate_needs_two_rows_and_time():
    rate = RecentRate()
    assert rate.per_s(1.0) is None
    rate.add(1.0, 5)
    assert rate.per_s(2.0) is None
    rate.add(1.0, 5)
    assert rate.per_s(1.0) is None
    assert rate.per_s(2.0) == 5.0


@given(TIMES)
@settings(deadline=None)
def test_nothing_is_lost_in_bins_however_long_the_run(times):
    bins = SumBins(1)
    for t_s in times:
        bins.add(t_s, 0, 3)
    curve = bins.curve(now_s=math.inf)
    width_s = curve.t_s[1] - curve.t_s[0] if len(curve.t_s) > 1 else None
    assert len(curve.t_s) <= NUM_BINS
    if width_s is not None:
        assert sum(curve.per_s[0]) * width_s == pytest.approx(3 * len(times))


def test_the_bin_that_is_not_over_is_left_out():
    bins = SumBins(2)
    for i in range(1, 401):
        bins.add(i * 0.1, i % 2, 10)
    open_end = bins.curve(now_s=40.0)
    assert all(rate == pytest.approx(50.0, rel=0.25) for rate in open_end.per_s[0][1:])
    assert len(bins.curve(now_s=1e9).t_s) == len(open_end.t_s) + 1


def test_few_rows_make_wide_bins():
    bins = SumBins(1)
    for i in range(40):
        bins.add(3.0 * i, 0, 1)
    curve = bins.curve(now_s=math.inf)
    assert curve.t_s[1] - curve.t_s[0] >= 8 * FIRST_WIDTH_S
    assert all(rate == pytest.approx(1 / 3, rel=0.2) for rate in curve.per_s[0][:-1])


def test_rows_out_of_order_and_absurd_times_are_taken():
    bins = SumBins(1)
    for t_s in (100.0, 50.0, -1e11, 1e11, 100.5):
        bins.add(t_s, 0, 1)
    assert len(bins.curve(now_s=math.inf).t_s) <= NUM_BINS


def test_no_rows_make_no_curve():
    assert SumBins(2).curve(now_s=5.0).per_s == [[], []]


def moving_means(values: list[float], window: int) -> list[float]:
    tails = (values[max(0, i + 1 - window) : i + 1] for i in range(len(values)))
    return [sum(tail) / len(tail) for tail in tails]


def test_a_bin_has_the_mean_at_its_end_and_the_range_within():
    returns = ReturnBins(window=3)
    values = [float(i * i % 17) for i in range(40)]
    for i, value in enumerate(values):
        returns.add(i * FIRST_WIDTH_S / 4, value, 10 * i)
    means = moving_means(values, 3)
    curve = returns.curve()
    assert [bin_.mean for bin_ in curve] == pytest.approx(means[3::4])
    assert [bin_.low for bin_ in curve] == [min(values[i : i + 4]) for i in range(0, 40, 4)]
    assert [bin_.high for bin_ in curve] == [max(values[i : i + 4]) for i in range(0, 40, 4)]
    assert [bin_.env_steps for bin_ in curve] == [10 * i for i in range(3, 40, 4)]
    assert returns.mean == pytest.approx(means[-1])


@given(st.lists(st.tuples(st.floats(0.0, 1e4), st.floats(-1e6, 1e6)), min_size=1, max_size=300))
@settings(deadline=None)
def test_a_long_curve_keeps_its_end_and_its_range(rows):
    returns = ReturnBins(window=10)
    for t_s, value in sorted(rows):
        returns.add(t_s, value, 0)
    curve = returns.curve()
    values = [value for _, value in sorted(rows)]
    assert len(curve) <= NUM_BINS
    assert curve[-1].mean == pytest.approx(moving_means(values, 10)[-1])
    assert min(bin_.low for bin_ in curve) == min(values)
    assert max(bin_.high for bin_ in curve) == max(values)


def test_a_return_that_is_not_finite_is_counted_and_not_drawn():
    returns = ReturnBins(window=5)
    for value in (1.0, math.nan, math.inf, 3.0):
        returns.add(1.0, value, 0)
    assert returns.num_episodes == 4
    assert returns.mean == 2.0
    assert [bin_.high for bin_ in returns.curve()] == [3.0]


def test_a_histogram_has_a_bar_for_each_lag():
    lags = LagCounts()
    lags.add({0: 10, 3: 5})
    lags.add({3: 5, 1: 1})
    assert [(bar.low, bar.high, bar.env_steps) for bar in lags.bars()] == [
        (0, 0, 10),
        (1, 1, 1),
        (2, 2, 0),
        (3, 3, 10),
    ]
    assert LagCounts().bars() == []


@given(st.lists(st.tuples(st.integers(-10, 2**53), st.integers(0, 2**53)), min_size=1))
@settings(deadline=None)
def test_any_range_of_lags_makes_few_bars_without_gaps_and_loses_nothing(pairs):
    lags = LagCounts()
    for lag, steps in pairs:
        lags.add({lag: steps})
    bars = lags.bars()
    assert len(bars) <= MAX_BARS
    assert sum(bar.env_steps for bar in bars) == sum(steps for _, steps in pairs)
    assert bars[0].low <= min(lag for lag, _ in pairs)
    assert bars[-1].high >= max(lag for lag, _ in pairs)
    assert all(b.low == a.high + 1 for a, b in itertools.pairwise(bars))


def test_any_number_of_lags_takes_bounded_memory():
    lags = LagCounts()
    lags.add({lag: 1 for lag in range(0, 100 * MAX_LAGS, 7)})
    assert len(lags._counts) <= MAX_LAGS
    assert sum(bar.env_steps for bar in lags.bars()) == len(range(0, 100 * MAX_LAGS, 7))
