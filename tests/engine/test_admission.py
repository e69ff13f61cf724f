"""Admission against a simulated system: whatever the order of events, no sample gets too old."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.admission.bounded import Admission
from engine.admission.rates import RateWindow
from engine.admission.tickets import Batch, Ticket
from engine.spec import StalenessSpec

CHECKED = settings(deadline=None, max_examples=300, derandomize=True)


@dataclass
class Actor:
    """An actor as the admission sees it: idle, holding a ticket, or collecting under it."""

    name: str
    held_version: int = -1
    ticket: Ticket | None = None
    is_collecting: bool = False


@dataclass
class System:
    """Actors and a learner around one `Admission`, with every promise checked at every step."""

    admission: Admission
    spec: StalenessSpec
    per_batch: int
    actors: list[Actor]
    choose: random.Random
    first_batch: int = 0
    versions: dict[int, int] = field(default_factory=dict)
    lags: list[int] = field(default_factory=list)
    num_admitted: int = 0
    num_taken: int = 0
    num_dropped: int = 0
    num_lost: int = 0
    num_batches: int = 0

    @property
    def newest_version(self) -> int:
        return self.first_batch + self.num_batches

    def advance(self, actor: Actor) -> None:
        """The actor's next step: ask, start, or finish, whichever is its turn."""
        if actor.ticket is None:
            self._ask(actor)
        elif not actor.is_collecting:
            self._start(actor)
        else:
            self._finish(actor)
        self.check()

    def _ask(self, actor: Actor) -> None:
        actor.ticket = self.admission.admit(actor.name, actor.held_version)
        if actor.ticket is not None:
            assert actor.ticket.number == self.num_admitted, "tickets count admissions"
            assert actor.ticket.owner == actor.name
            assert self.admission.admit(actor.name, actor.held_version) == actor.ticket
            self.num_admitted += 1

    def _start(self, actor: Actor) -> None:
        assert actor.ticket is not None
        oldest = max(actor.ticket.min_version, actor.held_version, self.first_batch)
        if oldest <= self.newest_version:
            actor.held_version = self.choose.randint(oldest, self.newest_version)
            actor.is_collecting = True
        else:
            self._ask_again(actor)

    def _ask_again(self, actor: Actor) -> None:
        """As an actor does that has waited for a while: its ticket can need older weights now."""
        before = actor.ticket
        actor.ticket = self.admission.admit(actor.name, actor.held_version)
        assert before is not None
        assert actor.ticket is not None
        assert actor.ticket.number == before.number

    def _finish(self, actor: Actor) -> None:
        assert actor.ticket is not None
        assert self.admission.arrive(actor.ticket.number, actor.held_version)
        assert not self.admission.arrive(actor.ticket.number, actor.held_version), "a duplicate"
        self.versions[actor.ticket.number] = actor.held_version
        actor.ticket, actor.is_collecting = None, False

    def lose(self, actor: Actor) -> None:
        """The actor dies, and a new one takes its place and name."""
        self.admission.lose(actor.name)
        if actor.ticket is not None:
            self.num_lost += 1
            assert not self.admission.arrive(actor.ticket.number, self.newest_version)
        actor.ticket, actor.is_collecting, actor.held_version = None, False, -1
        self.check()

    def train(self) -> bool:
        """The learner's step; whether there was a batch."""
        number = self.admission.next_batch
        batch = self.admission.take_batch()
        if batch is None:
            return False
        assert len(batch.taken) in (0, self.per_batch)
        for ticket in batch.dropped:
            del self.versions[ticket]
        self.lags += [number - self.versions.pop(ticket) for ticket in batch.taken]
        self.num_taken += len(batch.taken)
        self.num_dropped += len(batch.dropped)
        self.num_batches += bool(batch.taken)
        self.check()
        return bool(batch.taken)

    def check(self) -> None:
        gone = self.num_taken + self.num_dropped + self.num_lost
        assert self.num_admitted == gone + self.admission.num_outstanding
        assert self.admission.num_outstanding <= max(self.spec.max_queued_rollouts, self.per_batch)
        assert self.admission.next_batch == self.newest_version
        if self.spec.mode != "unbounded":
            assert max(self.lags, default=0) <= self.spec.max_lag
        if self.spec.mode == "block":
            assert self.num_dropped == 0

    def run(self, num_events: int, loss_share: float) -> None:
        """Random interleaving, each actor and the learner at a rate of its own."""
        rates = [self.choose.choice((0.02, 0.3, 1.0, 5.0)) for _ in (*self.actors, None)]
        for who in self.choose.choices((*self.actors, None), rates, k=num_events):
            if who is None:
                self.train()
            elif self.choose.random() < loss_share:
                self.lose(who)
            else:
                self.advance(who)

    def must_make_progress(self) -> None:
        """If everybody goes on, batches keep coming: no state is a dead end."""
        for _ in range(3):
            before = self.num_batches
            for _ in range(3 * (self.per_batch + 2)):
                for actor in self.actors:
                    self.advance(actor)
                while self.train():
                    pass
            assert self.num_batches > before, "nobody can go on"


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
    assert admission.admit("actor-2", 0) == Ticket(2, "actor-2", min_version=0)


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
