"""The adaptive bound on lag, alone, against simulated systems and against any measurements."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.admission.adaptive import (
    FIRST_REST,
    MARGIN,
    WINDOWS,
    AdaptiveBound,
    Decision,
    MeasuredWindow,
    pays,
)
from engine.spec import LEAST_AUTO_LAG, MOST_AUTO_LAG

CHECKED = settings(deadline=None, max_examples=40, derandomize=True)
FLOOR = 0.5
LONG = 1500
"""Windows: fifty minutes of the shortest."""
RATE = 1000.0


@dataclass
class Plant:
    """A system whose throughput depends on the bound.

    Args:
        best: Up to this bound, throughput is in proportion to it.
        noise: Standard deviation of a window's throughput, relative.
        ess: Effective sample size under a bound; None: not known.
        waits: Share of waiting that is always there, whatever it is due to.
    """

    best: int
    noise: float = 0.0
    ess: Callable[[int], float] | None = None
    waits: float = 0.0
    choose: random.Random = field(default_factory=lambda: random.Random(0))

    def window(self, bound: int) -> MeasuredWindow:
        share = min(1.0, (bound + 1) / (self.best + 1))
        waited = max(1.0 - share, self.waits)
        rate = RATE * share * max(self.choose.gauss(1.0, self.noise), 0.1)
        return MeasuredWindow(rate, waited, waited, None if self.ess is None else self.ess(bound))


def run(control: AdaptiveBound, plant: Plant, windows: int) -> tuple[list[int], list[Decision]]:
    """The bound under which each window was, and what was decided."""
    bounds, decisions = [], []
    for _ in range(windows):
        bounds.append(control.bound)
        before = control.bound
        decision = control.observe(plant.window(before))
        if decision is not None:
            decisions.append(decision)
            assert decision.before == before
            assert decision.bound == control.bound
        else:
            assert control.bound == before, "it moves without a word"
    return bounds, decisions


def told_by(control: AdaptiveBound, plant: Plant) -> str:
    """What is told at the end of a window."""
    decision = control.observe(plant.window(control.bound))
    return decision.why if decision is not None else ""


def changes(bounds: list[int]) -> int:
    return sum(a != b for a, b in pairwise(bounds))


def usual(bounds: list[int]) -> int:
    """The bound of most windows of the second half."""
    at_rest = bounds[len(bounds) // 2 :]
    return max(set(at_rest), key=at_rest.count)


@pytest.mark.parametrize("best", range(1, MOST_AUTO_LAG + 1))
def test_it_settles_at_a_bound_that_is_hardly_larger_than_what_costs_nothing(best: int):
    bounds, _ = run(AdaptiveBound(FLOOR), Plant(best), LONG)
    assert bounds[0] == LEAST_AUTO_LAG
    assert usual(bounds) + 1 >= (1 - MARGIN) * (best + 1)
    assert usual(bounds) <= max(best, best * 4 // 3)
    assert changes(bounds[LONG // 2 :]) <= 6, "it comes to rest"


def test_it_finds_a_large_bound_soon():
    bounds, _ = run(AdaptiveBound(FLOOR), Plant(MOST_AUTO_LAG), 30)
    assert MOST_AUTO_LAG in bounds


def test_it_tries_nothing_while_nobody_waits():
    bounds, decisions = run(AdaptiveBound(FLOOR), Plant(1), LONG)
    assert set(bounds) == {LEAST_AUTO_LAG}
    assert decisions == []


@pytest.mark.parametrize(("learner", "actors"), [(0.5, 0.0), (0.0, 0.5)])
def test_it_tries_nothing_if_only_one_side_waits(learner: float, actors: float):
    control = AdaptiveBound(FLOOR)
    for _ in range(LONG):
        assert control.observe(MeasuredWindow(RATE, learner, actors)) is None


@pytest.mark.parametrize("noise", [0.0, 0.02, 0.1])
def test_where_nothing_pays_it_goes_back_and_tries_ever_more_seldom(noise: float):
    found = []
    for seed in range(20):
        plant = Plant(1, noise, waits=0.5, choose=random.Random(seed))
        bounds, _ = run(AdaptiveBound(FLOOR), plant, LONG)
        assert LEAST_AUTO_LAG + 1 in bounds, "it has tried"
        assert changes(bounds[LONG // 2 :]) <= 12
        found.append(usual(bounds))
    assert found.count(LEAST_AUTO_LAG) >= 18, "noise passes for a gain in few of them"


@pytest.mark.parametrize("noise", [0.01, 0.05])
@pytest.mark.parametrize("best", [2, 5, 11, MOST_AUTO_LAG])
def test_noise_neither_raises_nor_lowers_it_by_much(best: int, noise: float):
    found = []
    for seed in range(10):
        bounds, _ = run(AdaptiveBound(FLOOR), Plant(best, noise, choose=random.Random(seed)), LONG)
        assert changes(bounds[LONG // 2 :]) <= 20
        found.append(usual(bounds))
    share = sum(min(1.0, (bound + 1) / (best + 1)) for bound in found) / len(found)
    assert share >= 1 - MARGIN - 2 * noise
    assert sorted(found)[len(found) // 2] <= max(best + 1, best * 3 // 2)


@CHECKED
@given(
    limit=st.integers(1, 12),
    noise=st.sampled_from((0.0, 0.05)),
    seed=st.integers(0, 2**32),
)
def test_it_stays_below_where_samples_are_worth_too_little(limit: int, noise: float, seed: int):
    """Although throughput would rise up to the largest bound."""
    plant = Plant(
        MOST_AUTO_LAG,
        noise,
        lambda bound: FLOOR + 0.2 if bound <= limit else FLOOR - 0.2,
        choose=random.Random(seed),
    )
    bounds, decisions = run(AdaptiveBound(FLOOR), plant, LONG)
    assert usual(bounds) <= limit
    above = sum(bound > limit for bound in bounds[LONG // 2 :])
    assert above < 0.03 * LONG, "and ever more seldom tries more"
    lowered = [one for one in decisions if "effective sample size fell" in one.why]
    assert lowered
    assert all(one.bound < one.before for one in lowered)


def test_a_bound_is_halved_as_soon_as_the_sample_size_falls_there():
    control = AdaptiveBound(FLOOR)
    plant = Plant(MOST_AUTO_LAG)
    for _ in range(2):  # against half of it, and against a quarter less
        while f"{MOST_AUTO_LAG} pays" not in told_by(control, plant):
            pass
    told = (control.observe(MeasuredWindow(RATE, 0.0, 0.0, ess=0.1)) for _ in range(8))
    lowered = next(decision for decision in told if decision is not None)
    assert (lowered.before, lowered.bound) == (MOST_AUTO_LAG, MOST_AUTO_LAG // 2)
    assert "fell to 10% of the batch, below 50%" in lowered.why


def test_no_floor_no_lowering_and_no_trial_below_the_floor():
    bounds, _ = run(AdaptiveBound(0.0), Plant(8, ess=lambda _: 0.01), 300)
    assert usual(bounds) == 8
    bounds, _ = run(AdaptiveBound(FLOOR), Plant(8, ess=lambda _: 0.4), 300)
    assert set(bounds) == {LEAST_AUTO_LAG}


windows = st.builds(
    MeasuredWindow,
    env_steps_per_s=st.floats(0, 1e9),
    learner_waited=st.floats(0, 1),
    actors_held=st.floats(0, 1),
    ess=st.none() | st.floats(0, 1),
)


@CHECKED
@given(
    most=st.integers(1, MOST_AUTO_LAG),
    seen=st.lists(windows, min_size=1, max_size=20),
    seed=st.integers(0, 2**32),
)
def test_whatever_it_measures_it_keeps_its_limits_and_its_pauses_double(
    most: int, seen: list[MeasuredWindow], seed: int
):
    control, choose = AdaptiveBound(FLOOR, most), random.Random(seed)
    began: dict[tuple[int, int], list[int]] = {}
    lowered: list[int] = []
    for now in range(1000):
        decision = control.observe(choose.choice(seen))
        assert LEAST_AUTO_LAG <= control.bound <= most
        if decision is None:
            continue
        if "a trial" in decision.why:
            low, high = sorted((decision.before, decision.bound))
            began.setdefault((low, high), []).append(now)
        elif "effective sample size fell" in decision.why:
            lowered.append(now)
            assert decision.bound < decision.before
    num_trials = sum(map(len, began.values()))
    most_of_one = 2 + math.log2(1000 / FIRST_REST)
    for times in began.values():
        aborted = sum(any(0 < end - t <= 3 * WINDOWS for end in lowered) for t in times)
        assert len(times) - aborted <= most_of_one
    assert num_trials <= len(began) * most_of_one + len(lowered)


def test_a_gain_must_exceed_margin_and_noise():
    assert pays([100.0] * 5, [106.0] * 5)
    assert not pays([100.0] * 5, [104.0] * 5)
    assert not pays([60.0, 140.0, 100.0, 80.0, 120.0], [70.0, 150.0, 110.0, 90.0, 130.0])
    assert pays([0.0, 0.0], [1.0, 1.0])
