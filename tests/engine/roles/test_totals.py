"""Running totals stay small however long a run is, and their rates stay right."""

from __future__ import annotations

import random
import tracemalloc

import pytest

from engine.roles.coordinator.totals import MAX_POINTS, RunTotals, Series
from engine.testing import make_experiment
from engine.trace.records import Consumption
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


@pytest.mark.parametrize(("is_joint", "known"), [(True, (96, 192)), (False, (32, 64))])
def test_a_checkpoint_is_told_what_its_own_learners_have_reported(
    is_joint: bool, known: tuple[int, int]
) -> None:
    totals = RunTotals(make_experiment(), is_joint=is_joint)
    for learner, updates in ((0, 1), (1, 2)):
        for number in range(1, updates + 1):
            row = Consumption(
                t_s=1.0,
                learner=learner,
                version=number,
                env_steps=32,
                env_steps_total=32 * number,
                samples_trained=64,
                samples_trained_total=64 * number,
                updates_total=number,
                wait_s=0.0,
                update_s=0.1,
                metrics={},
            )
            totals.add(row, 1.0)
    standing = totals.standing_of("learner-0", 2.0)
    assert (standing.consumed, standing.trained) == known
    assert standing.counters.env_steps_consumed == 96
