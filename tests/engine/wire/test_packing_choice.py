"""When rollouts are packed: only where the link is the limit and packing makes them sooner."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from engine.wire.packing_choice import (
    FIRST_WAIT,
    IDLE_SHARE,
    LIMITING_SHARE,
    MOST_COST,
    UNSETTLED,
    WINDOW,
    PackingChoice,
)

TRIAL = 2 * (WINDOW + UNSETTLED)
"""Rollouts until a decision, at the latest."""


@dataclass
class Actor:
    """One that collects, packs and sends, and waits until the link has taken what it sent before.

    Attributes:
        collect_s: Of a rollout.
        plain_s: That the link takes for one as it is.
        ratio: By which it shrinks.
        pack_s: That packing takes.
    """

    collect_s: float
    plain_s: float
    ratio: float = 10.0
    pack_s: float = 0.001
    choice: PackingChoice = field(default_factory=PackingChoice)
    now_s: float = 0.0
    busy_s: float = 0.0
    free_s: float = 0.0

    def send(self, count: int) -> list[bool]:
        """Whether each of so many rollouts was packed."""
        done = []
        for _ in range(count):
            self.now_s = max(self.now_s + self.collect_s, self.free_s)
            link_s = self.plain_s
            packs = self.choice.next(self.now_s, self.busy_s)
            if packs:
                self.now_s += self.pack_s
                self.choice.packed(self.pack_s)
                link_s /= self.ratio
            self.free_s = max(self.free_s, self.now_s) + link_s
            self.busy_s += link_s
            done.append(packs)
        return done


def test_a_link_that_is_the_limit_gets_packed_rollouts_soon_and_keeps_them():
    actor = Actor(collect_s=0.02, plain_s=0.1)
    assert actor.send(TRIAL)[:WINDOW] == [False] * WINDOW
    assert all(actor.send(1000))
    assert actor.choice.is_settled_on_packing
    assert actor.choice.plain_s > 5 * actor.choice.packed_s


def test_a_link_that_is_idle_most_of_the_time_never_gets_any():
    assert not any(Actor(collect_s=0.1, plain_s=0.02).send(2000))


def test_packing_that_takes_longer_than_the_link_is_given_up_and_tried_ever_more_rarely():
    actor = Actor(collect_s=0.001, plain_s=0.01, pack_s=0.02)
    packed = actor.send(20 * FIRST_WAIT)
    assert not actor.choice.is_settled_on_packing
    assert 0 < sum(packed) <= 5 * (WINDOW + UNSETTLED)
    later = actor.send(20 * FIRST_WAIT)
    assert sum(later) < sum(packed)


def test_what_does_not_shrink_is_sent_as_it_is():
    actor = Actor(collect_s=0.001, plain_s=0.01, ratio=1.0)
    actor.send(TRIAL)
    assert sum(actor.send(FIRST_WAIT // 2)) == 0


def test_a_link_that_is_not_the_limit_any_more_gets_them_as_they_are():
    actor = Actor(collect_s=0.02, plain_s=0.1)
    actor.send(100)
    assert actor.choice.is_settled_on_packing
    actor.plain_s = 0.002  # such as when others stopped to use it
    actor.send(100)
    assert not any(actor.send(1000))
    actor.plain_s = 0.1
    actor.send(100)
    assert actor.choice.is_settled_on_packing


def test_what_stops_shrinking_is_sent_as_it_is_again():
    actor = Actor(collect_s=0.02, plain_s=0.1)
    actor.send(100)
    actor.ratio, actor.pack_s = 1.0, 0.05
    actor.send(TRIAL)
    assert not actor.choice.is_settled_on_packing


def test_without_a_measurement_nothing_is_packed():
    choice = PackingChoice()
    assert not any(choice.next(float(number), None) for number in range(100))


def test_a_new_connection_whose_time_begins_anew_does_not_count():
    choice = PackingChoice()
    busy = [number * 0.9 % 5 for number in range(1000)]  # it breaks every five rollouts
    decisions = [choice.next(float(number), item) for number, item in enumerate(busy)]
    assert len(decisions) == 1000


@given(st.floats(1e-4, 1.0), st.floats(1e-4, 1.0), st.floats(1.0, 30.0), st.floats(1e-5, 1.0))
def test_it_settles_on_packing_only_where_that_pays(
    collect_s: float, plain_s: float, ratio: float, pack_s: float
):
    actor = Actor(collect_s, plain_s, ratio, pack_s)
    actor.send(3000)
    packed_s = plain_s / ratio + pack_s
    if actor.choice.is_settled_on_packing:
        assert packed_s <= (MOST_COST + 0.05) * plain_s
        assert plain_s >= IDLE_SHARE * collect_s
    elif plain_s > 1.5 * collect_s and packed_s < 0.7 * MOST_COST * plain_s:
        raise AssertionError("the link is the limit, and packing would have paid")


@given(st.floats(0.01, 0.9 * LIMITING_SHARE))
def test_below_the_share_that_counts_as_a_limit_there_is_no_trial(share: float):
    assert not any(Actor(collect_s=1.0, plain_s=share).send(200))
