"""The rate limiter: the ratio holds whatever happens, and somebody may always go on."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.replay.limiter import RateLimiter, RoundLimiter, least_tolerance


def make_limiter(
    ratio: float = 2.0, min_size: int = 30, batch: int = 16, rollout: int = 10, spare: float = 0.0
) -> RateLimiter:
    return RateLimiter(
        ratio=ratio,
        min_size=min_size,
        batch_samples=batch,
        rollout_steps=rollout,
        tolerance=least_tolerance(ratio, batch, rollout) + spare,
    )


@settings(deadline=None, max_examples=80, derandomize=True)
@given(
    ratio=st.floats(0.05, 64),
    min_size=st.integers(0, 200),
    batch=st.integers(1, 600),
    rollout=st.integers(1, 100),
    spare=st.floats(0, 1000),
    num_actors=st.integers(1, 8),
    speed=st.floats(0.05, 0.95),
    random=st.randoms(use_true_random=False),
)
def test_the_ratio_is_held_at_every_speed_and_nobody_waits_for_ever(
    ratio: float,
    min_size: int,
    batch: int,
    rollout: int,
    spare: float,
    num_actors: int,
    speed: float,
    random,
):
    """Actors and a learner act in random order, one of them up to 19 times as often."""
    limiter = make_limiter(ratio, min_size, batch, rollout, spare)
    tolerance = least_tolerance(ratio, batch, rollout) + spare
    tickets: dict[int, int] = {}
    for _ in range(300):
        if random.random() < speed:
            actor = random.randrange(num_actors)
            if actor in tickets:
                assert limiter.arrive(tickets.pop(actor), random.randint(rollout // 2, rollout))
            elif (ticket := limiter.admit(f"actor-{actor}")) is not None:
                tickets[actor] = ticket
        else:
            limiter.take_batch()
        if limiter.sampled:
            assert -tolerance - 1e-6 <= limiter.error
        else:
            assert limiter.inserted < min_size or limiter.error >= -1e-6
        assert limiter.error <= tolerance + 1e-6
        if not tickets:
            can_collect = limiter.admit("actor-0")
            if can_collect is not None:
                limiter.lose("actor-0")
            else:
                assert limiter.take_batch(), "both sides wait for each other"


def test_nothing_is_drawn_before_there_is_enough():
    limiter = make_limiter(min_size=30)
    for sequence in range(3):
        assert not limiter.take_batch()
        ticket = limiter.admit("actor-0")
        assert ticket == sequence
        assert limiter.arrive(ticket, 10)
    assert limiter.take_batch()


def test_nothing_is_drawn_from_an_empty_store():
    """Without a least size a batch was drawn before anything had come: the store's error."""
    limiter = make_limiter(min_size=0)
    assert not limiter.take_batch()
    ticket = limiter.admit("actor-0")
    assert ticket is not None
    assert limiter.arrive(ticket, 1)
    assert limiter.take_batch()


def test_a_ticket_is_kept_until_its_rollout_comes():
    limiter = make_limiter()
    ticket = limiter.admit("actor-0")
    assert limiter.admit("actor-0") == ticket
    assert limiter.num_open == 1
    assert limiter.arrive(0, 10)
    assert not limiter.arrive(0, 10), "a duplicate does not count"
    assert limiter.inserted == 10
    other = limiter.admit("actor-0")
    limiter.lose("actor-0")
    assert other is not None
    assert not limiter.arrive(other, 10)


def test_actors_wait_for_a_slow_learner_and_the_learner_for_slow_actors():
    limiter = make_limiter(ratio=2.0, min_size=0, batch=16, rollout=10)  # tolerance 36
    for _ in range(2):
        limiter.arrive(limiter.admit("actor-0") or 0, 10)
    assert limiter.error == 40 or limiter.admit("actor-0") is None
    while limiter.take_batch():
        assert limiter.error >= -36
    assert limiter.admit("actor-0") is not None


def test_a_tolerance_that_could_block_both_sides_is_refused():
    with pytest.raises(ValueError, match="could block"):
        make_limiter(spare=-1.0)


def make_rounds(ratio: float = 2.0, min_size: int = 0, per_round: int = 2) -> RoundLimiter:
    """Rollouts of 8 steps, batches of 16 samples."""
    return RoundLimiter(
        ratio=ratio,
        min_size=min_size,
        batch_samples=16,
        rollout_steps=8,
        rollouts_per_round=per_round,
    )


def test_in_rounds_the_learner_waits_for_all_rollouts_and_actors_for_all_batches():
    limiter = make_rounds()
    first, second = limiter.admit("a"), limiter.admit("b")
    assert None not in (first, second)
    assert limiter.admit("a") == first, "the ticket in hand"
    assert limiter.admit("c") is None, "the round has its rollouts"
    assert limiter.arrive(first, 8)
    assert not limiter.take_batch(), "b still collects"
    assert limiter.admit("a") is None
    assert limiter.arrive(second, 8)
    assert limiter.admit("a") is None, "two batches are owed"
    assert limiter.take_batch()
    assert limiter.admit("a") is None, "one more is owed"
    assert limiter.take_batch()
    assert not limiter.take_batch()
    assert limiter.admit("a") is not None


def test_a_round_that_owes_no_batch_is_followed_by_the_next_at_once():
    limiter = make_rounds(ratio=0.35)
    for _ in range(3):
        for actor in "ab":
            ticket = limiter.admit(actor)
            assert ticket is not None
            limiter.arrive(ticket, 8)
    assert (limiter.inserted, limiter.sampled) == (48, 0)
    assert limiter.admit("a") is None, "a whole batch is owed"
    assert limiter.take_batch()
    assert not limiter.take_batch(), "the rest waits until it is a batch"
    assert limiter.admit("a") is not None


def test_a_lost_actor_ends_its_part_of_a_round_and_others_take_what_is_left():
    limiter = make_rounds(per_round=3)
    ticket = limiter.admit("a")
    assert limiter.admit("b") is not None
    limiter.arrive(ticket, 8)
    limiter.lose("b")
    assert not limiter.take_batch(), "a third rollout is still to come"
    ticket = limiter.admit("a")
    assert ticket is not None
    limiter.arrive(ticket, 8)
    assert limiter.take_batch()


def test_a_lost_batch_is_drawn_again_though_a_round_has_begun():
    limiter = make_rounds(per_round=1)
    limiter.arrive(limiter.admit("a"), 8)
    assert limiter.take_batch()
    assert limiter.admit("a") is not None
    limiter.lose_batch()
    assert limiter.sampled == 0
    assert limiter.take_batch(), "or its actor would wait for weights that never come"
    assert not limiter.take_batch()
    assert limiter.sampled == 16


@settings(deadline=None, max_examples=50, derandomize=True)
@given(
    ratio=st.floats(0.05, 64),
    min_size=st.integers(0, 200),
    per_round=st.integers(1, 6),
    num_actors=st.integers(1, 6),
    random=st.randoms(use_true_random=False),
)
def test_rounds_hold_the_ratio_and_nobody_waits_for_ever(
    ratio: float, min_size: int, per_round: int, num_actors: int, random
):
    limiter = make_rounds(ratio, min_size, per_round)
    tickets: dict[str, int] = {}
    for _ in range(300):
        actor = f"actor-{random.randrange(num_actors)}"
        may_draw = not limiter.num_open and limiter.take_batch()
        ticket = tickets.get(actor)
        if ticket is not None and random.random() < 0.2:
            limiter.lose(tickets and actor)
            del tickets[actor]
        elif ticket is not None:
            assert limiter.arrive(tickets.pop(actor), random.randint(4, 8))
        elif not may_draw and (ticket := limiter.admit(actor)) is not None:
            tickets[actor] = ticket
        if limiter.sampled:
            assert limiter.error + 1e-6 >= 0
        can_go_on = bool(tickets) or any(
            limiter.admit(f"actor-{i}") is not None for i in range(num_actors)
        )
        if not can_go_on:
            assert limiter.take_batch(), "actors wait, so the learner has its turn"
        tickets = {holder: number for number, holder in limiter._open.items()}
