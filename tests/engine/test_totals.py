"""Running totals stay small however long a run is, and their rates stay right."""

from __future__ import annotations

import random
import tracemalloc

from engine.roles.totals import MAX_POINTS, Series
from engine.trace.summary import steady_rate_per_s
from tianji_cli.analysis.check import RATE_TOLERANCE


def test_a_series_of_any_length_stays_small() -> None:
    tracemalloc.start()
    try:
        series = Series()
        for number in range(4 * MAX_POINTS):
            series.add(number * 0.01, 32)
        held_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held_bytes < 2.5 * 2**20
    assert series.total == 32 * 4 * MAX_POINTS


def test_the_rate_of_a_thinned_series_is_that_of_all_its_points() -> None:
    rng = random.Random(7)
    series, points = Series(), []
    now_s, total = 0.0, 0
    for number in range(5 * MAX_POINTS):
        now_s += rng.expovariate(100 if number % 50_000 < 25_000 else 400)
        total += 32
        series.add(now_s, 32)
        points.append((now_s, total))
    exact, found = steady_rate_per_s(points), series.steady_per_s()
    assert exact is not None
    assert found is not None
    assert abs(found / exact - 1) < RATE_TOLERANCE / 2
