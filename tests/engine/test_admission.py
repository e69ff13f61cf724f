"""Admission against a simulated system: whatever the order of events, no sample gets too old."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.admission.bounded import Admission
from engine.admission.rates import RateWindow
from engine.admission.tickets import Batch, Ticket
from engine.spec import MOST_AUTO_LAG, StalenessSpec
from tests.helpers.engine.admission_system import Actor, System

CHECKED = settings(deadline=None, max_examples=300, derandomize=True)


@st.composite
def systems(draw: st.DrawFn, mode: str) -> System:
    per_batch = draw(st.integers(1, 8))
    spec = StalenessSpec(
        mode=mode,
        max_lag=draw(st.integers(0, 8)),
        max_queued_rollouts=draw(st.integers(1, 40)),
    )
    first = draw(st.sampled_from((0, 0, 17)))
    return System(
        Admission(spec, per_batch, first),
        spec,
        per_batch,
        [Actor(f"actor-{i}") for i in range(draw(st.integers(1, 20)))],
        random.Random(draw(st.integers(0, 2**32))),
        first,
    )


@pytest.mark.parametrize("mode", ["block", "drop"])
@pytest.mark.parametrize("loss_share", [0.0, 0.05])
def test_no_sample_is_trained_older_than_the_bound(mode: str, loss_share: float):
    @CHECKED
    @given(systems(mode))
    def check(system: System) -> None:
        system.run(num_events=300, loss_share=loss_share)
        system.must_make_progress()

    check()


@pytest.mark.parametrize("mode", ["block", "drop"])
@pytest.mark.parametrize("loss_share", [0.0, 0.05])
def test_under_a_moving_bound_no_rollout_gets_older_than_its_own(mode: str, loss_share: float):
    """And nothing is dropped in `block`, the ledger closes, and nobody waits for ever."""

    @settings(CHECKED, max_examples=60)
    @given(systems(mode), st.lists(st.integers(1, MOST_AUTO_LAG), min_size=2, max_size=3))
    def check(system: System, bounds: list[int]) -> None:
        system.spec = replace(system.spec, max_lag="auto")
        system.admission = Admission(system.spec, system.per_batch, system.first_batch)
        system.moves_to = tuple(bounds)
        for bound in bounds:
            system.run(num_events=100, loss_share=loss_share)
            system.admission.max_lag = bound
        system.must_make_progress()

    check()


def test_an_adaptive_bound_begins_at_1_and_a_ticket_keeps_the_one_that_it_was_given_with():
    admission = Admission(StalenessSpec(max_lag="auto"), 1)
    assert admission.max_lag == 1
    tickets = [admission.admit(f"actor-{i}", 0) for i in range(3)]
    assert [(ticket.min_version, ticket.max_lag) for ticket in tickets if ticket] == [
        (0, 1),
        (0, 1),
        (1, 1),
    ]
    admission.max_lag = 3
    late = admission.admit("actor-3", 0)
    assert late is not None
    assert (late.min_version, late.max_lag) == (0, 3)
    assert admission.admit("actor-2", 0) == tickets[2]


@CHECKED
@given(systems("unbounded"))
def test_without_a_bound_the_ledger_and_the_capacity_hold_all_the_same(system: System):
    system.run(num_events=200, loss_share=0.02)
    assert system.num_dropped == 0
    system.must_make_progress()


def fast_actors_and_a_slow_learner(mode: str) -> System:
    """Four actors that always collect, a learner that trains only once nobody can go on."""
    spec = StalenessSpec(mode=mode, max_lag=1, max_queued_rollouts=32)
    actors = [Actor(f"actor-{i}") for i in range(4)]
    system = System(Admission(spec, 2), spec, 2, actors, random.Random(0))
    for _ in range(20):
        for _ in range(30):
            for actor in system.actors:
                system.advance(actor)
        system.train()
    return system


def test_a_schedule_that_breaks_the_bound_if_nothing_holds_it():
    assert max(fast_actors_and_a_slow_learner("unbounded").lags) > 1
    assert max(fast_actors_and_a_slow_learner("block").lags) <= 1


def test_the_bound_is_used_to_the_full_and_not_more_strictly_than_needed():
    assert max(fast_actors_and_a_slow_learner("block").lags) == 1


def make_admission(mode: str = "block", max_lag: int = 0, per_batch: int = 2) -> Admission:
    spec = StalenessSpec(mode=mode, max_lag=max_lag, max_queued_rollouts=4)
    return Admission(spec, per_batch)


def test_the_first_tickets_ask_for_old_weights_and_later_ones_for_newer():
    admission = make_admission()
    tickets = [admission.admit(f"actor-{i}", 0) for i in range(4)]
    assert [ticket.min_version for ticket in tickets if ticket] == [0, 0, 1, 1]


def test_a_full_queue_admits_nobody_until_a_batch_is_taken():
    admission = make_admission()
    for i in range(4):
        assert admission.admit(f"actor-{i}", 0)
    assert admission.admit("actor-4", 0) is None
    assert admission.arrive(0, 0)
    assert admission.arrive(1, 0)
    assert admission.take_batch() == Batch(taken=(0, 1), dropped=())
    assert admission.admit("actor-4", 0)


def test_a_ticket_needs_older_weights_once_others_are_lost_and_its_owner_asks_again():
    """Else nobody would go on: its weights would only come from batches of the lost rollouts."""
    admission = make_admission("drop")
    for i in range(3):
        assert admission.admit(f"actor-{i}", 0)
    for i in range(2):
        admission.lose(f"actor-{i}")
    assert admission.admit("actor-2", 0) == Ticket(2, "actor-2", 0, max_lag=0)


def test_block_waits_for_a_straggler_and_drop_goes_on_without_it():
    for mode, batch in (("block", None), ("drop", Batch(taken=(1, 2), dropped=()))):
        admission = make_admission(mode, max_lag=0)
        for i in range(3):
            assert admission.admit(f"actor-{i}", 0)
        admission.arrive(1, 0)
        admission.arrive(2, 0)
        assert admission.take_batch() == batch, mode


def test_drop_gives_up_what_a_straggler_brings_too_late():
    admission = make_admission("drop", max_lag=0)
    for i in range(3):
        assert admission.admit(f"actor-{i}", 0)
    admission.arrive(1, 0)
    admission.arrive(2, 0)
    admission.take_batch()
    assert admission.arrive(0, 0)
    assert admission.take_batch() == Batch(taken=(), dropped=(0,))


def test_what_was_begun_with_newer_weights_than_needed_may_be_trained_later():
    admission = make_admission("drop", max_lag=1)
    for i in range(4):
        assert admission.admit(f"actor-{i}", 0)
    for first, second in ((1, 2), (3, 4)):
        admission.arrive(first, 0)
        admission.admit("actor-1", 1)
        admission.arrive(second, 0 if second == 2 else 1)
        assert admission.take_batch() == Batch(taken=(first, second), dropped=())
    admission.arrive(0, 2)
    admission.admit("actor-1", 2)
    admission.arrive(5, 2)
    assert admission.take_batch() == Batch(taken=(0, 5), dropped=())


def test_what_arrived_from_an_actor_stays_when_it_dies():
    admission = make_admission(per_batch=1)
    assert admission.admit("actor-0", 0)
    assert admission.arrive(0, 0)
    assert admission.admit("actor-0", 0)
    admission.lose("actor-0")
    assert admission.num_outstanding == 1
    assert admission.take_batch() == Batch(taken=(0,), dropped=())


def test_a_rate_needs_two_points_in_time():
    window = RateWindow(5.0)
    assert window.per_s() == 0.0
    window.add(1.0, 100)
    assert window.per_s() == 0.0
    window.add(1.0, 200)
    assert window.per_s() == 0.0
    window.add(3.0, 300)
    assert window.per_s() == 100.0


def test_a_rate_forgets_what_lies_before_its_window():
    window = RateWindow(2.0)
    for second in range(10):
        window.add(float(second), 1000 if second < 5 else 1000 + 10 * (second - 5))
    assert window.per_s() == 10.0


def test_a_rate_survives_a_pause_longer_than_its_window():
    window = RateWindow(1.0)
    window.add(0.0, 0)
    window.add(100.0, 50)
    assert window.per_s() == 0.5
