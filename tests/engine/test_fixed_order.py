"""A fixed order: whatever the speeds of all, equal rollouts are trained with equal weights."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.admission.fixed_order import FixedOrder
from engine.admission.tickets import Ticket
from engine.spec import StalenessSpec

CHECKED = settings(deadline=None, max_examples=40, derandomize=True)


@dataclass
class System:
    """Actors and a learner around one `FixedOrder`, in an order that chance decides."""

    lag: int
    per_batch: int
    names: tuple[str, ...]
    first: int
    choose: random.Random
    capacity: int | None = None
    order: FixedOrder = field(init=False)
    tickets: dict[str, Ticket] = field(default_factory=dict)
    collecting: set[str] = field(default_factory=set)
    sent: dict[int, tuple[str, int, int]] = field(default_factory=dict)
    """By ticket: who collected it, its how-manieth rollout this is, and with which weights."""
    counts: dict[str, int] = field(default_factory=dict)
    batches: list[tuple[tuple[str, int, int], ...]] = field(default_factory=list)

    def __post_init__(self) -> None:
        spec = StalenessSpec(mode="fixed", lag=self.lag, max_queued_rollouts=self.capacity)
        self.order = FixedOrder(spec, self.per_batch, self.first, self.names)

    @property
    def version(self) -> int:
        return self.first + len(self.batches)

    def advance(self, name: str) -> None:
        ticket = self.tickets.get(name)
        if ticket is None:
            if self.order.next_to_begin({name: -1}) == name:
                self._admit(name)
        elif name not in self.collecting:
            if ticket.min_version <= self.version:
                self.collecting.add(name)
            else:
                self._admit(name)  # it asks again while it waits
        else:
            self._finish(name, ticket)

    def _admit(self, name: str) -> None:
        ticket = self.order.admit(name, -1)
        if ticket is not None:
            assert self.order.admit(name, -1) == ticket, "asking again changes nothing"
            self.tickets[name] = ticket

    def _finish(self, name: str, ticket: Ticket) -> None:
        number = self.counts.get(name, 0)
        self.counts[name] = number + 1
        self.sent[ticket.number] = name, number, ticket.min_version
        assert self.order.arrive(ticket.number, ticket.min_version)
        assert not self.order.arrive(ticket.number, ticket.min_version), "a duplicate"
        del self.tickets[name]
        self.collecting.discard(name)

    def train(self) -> None:
        batch = self.order.take_batch()
        if batch is not None:
            assert not batch.dropped
            self.batches.append(tuple(self.sent.pop(number) for number in batch.taken))

    def lose(self, name: str) -> None:
        self.order.lose(name)
        self.tickets.pop(name, None)
        self.collecting.discard(name)

    def run(self, num_batches: int, absent: frozenset[str] = frozenset()) -> None:
        """Until so many batches are trained; each has a speed of its own."""
        able = [name for name in self.names if name not in absent]
        rates = [self.choose.choice((0.05, 0.3, 1.0, 5.0)) for _ in (*able, None)]
        for _ in range(100_000):
            if len(self.batches) >= num_batches:
                return
            for who in self.choose.choices((*able, None), rates, k=20):
                self.train() if who is None else self.advance(who)
        raise AssertionError(f"it stands still after {len(self.batches)} batches")


@st.composite
def sizes(draw: st.DrawFn) -> dict[str, object]:
    return {
        "lag": draw(st.integers(0, 4)),
        "per_batch": draw(st.integers(1, 5)),
        "names": tuple(f"actor-{number}" for number in range(draw(st.integers(1, 6)))),
        "first": draw(st.sampled_from((0, 17))),
        "capacity": draw(st.sampled_from((None, 1, 3))),
    }


@given(sizes(), st.integers(0, 2**32), st.integers(0, 2**32))
@CHECKED
def test_batches_do_not_depend_on_who_is_fast(size, seed, other):
    runs = [System(**size, choose=random.Random(number)) for number in (seed, other)]
    for run in runs:
        run.run(6)
        assert run.order.changed_from is None
    assert runs[0].batches[:6] == runs[1].batches[:6]


@given(sizes(), st.integers(0, 2**32))
@CHECKED
def test_every_batch_has_exactly_the_lag_and_all_actors_in_turn(size, seed):
    run = System(**size, choose=random.Random(seed))
    run.run(6)
    order = [item for batch in run.batches for item in batch]
    for slot, (name, number, version) in enumerate(order):
        batch = run.first + slot // run.per_batch
        assert version == max(run.first, batch - run.lag)
        assert name == run.names[slot % len(run.names)]
        assert number == slot // len(run.names), "an actor's rollouts are trained in its order"


@given(sizes(), st.integers(0, 2**32), st.data())
@CHECKED
def test_after_a_loss_training_goes_on_at_the_same_lag_and_says_so(size, seed, data):
    """Whether the actor comes back or not, as long as another is left."""
    run = System(**size, choose=random.Random(seed))
    run.run(data.draw(st.integers(0, 6)))
    name = data.draw(st.sampled_from(run.names))
    before = len(run.batches)
    run.lose(name)
    comes_back = len(run.names) == 1 or data.draw(st.booleans())
    run.run(before + 8, frozenset() if comes_back else frozenset({name}))
    assert run.first + before <= run.order.changed_from
    for index, batch in enumerate(run.batches):
        assert {version for *_, version in batch} == {run.first + max(0, index - run.lag)}


def test_what_a_ticket_says_of_the_next_rollout_comes_true():
    run = System(2, 2, ("actor-0", "actor-1", "actor-2"), 0, random.Random(3))
    foretold: dict[str, int | None] = {}
    for _ in range(400):
        for name in run.names:
            had = name in run.tickets
            run.advance(name)
            ticket = run.tickets.get(name)
            if ticket is not None and not had:
                assert foretold.get(name, ticket.min_version) == ticket.min_version
                foretold[name] = ticket.next_version
        run.train()
    assert len(run.batches) > 20


def test_a_batch_that_was_lost_on_its_way_is_collected_again_by_the_same_actors():
    run = System(1, 2, ("actor-0", "actor-1"), 0, random.Random(0))
    run.run(3)
    run.order.lose_batch()
    lost = run.batches.pop()
    assert run.order.changed_from == 2
    run.run(6)
    again = run.batches[2]
    assert [name for name, *_ in again] == [name for name, *_ in lost]
    assert {version for *_, version in again} == {1}
    assert again != lost


def test_a_rollout_that_was_sent_and_never_came_is_collected_again():
    order = FixedOrder(StalenessSpec(mode="fixed", lag=0), 1, 0, ("actor-0", "actor-1"))
    ticket = order.admit("actor-0", -1)
    assert not order.lose_sent("actor-0", -1), "it is still being collected"
    assert order.lose_sent("actor-0", ticket.number)
    assert order.changed_from == 0
    again = order.admit("actor-0", 0)
    assert (again.number, again.min_version) == (1, 0)
    assert order.arrive(again.number, 0)
    assert order.take_batch().taken == (1,)


def test_an_actor_that_makes_no_progress_is_waited_for():
    order = FixedOrder(StalenessSpec(mode="fixed"), 1, 0, ("actor-0", "actor-1"))
    ticket = order.admit("actor-0", -1)
    order.void("actor-0")
    assert order.admit("actor-0", -1) == ticket
    assert order.changed_from is None


def test_a_rollout_with_other_weights_is_an_error_and_not_trained():
    order = FixedOrder(StalenessSpec(mode="fixed", lag=0), 1, 4, ("actor-0",))
    ticket = order.admit("actor-0", -1)
    with pytest.raises(RuntimeError, match="slot 0 has weights 5 instead of 4"):
        order.arrive(ticket.number, 5)
