"""The rate limiter: the ratio holds whatever happens, and somebody may always go on."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.replay.limiter import RateLimiter, least_tolerance


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


@settings(deadline=None, max_examples=200, derandomize=True)
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
