"""Actors and a learner around one admission, in any order of events, with every promise checked."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from engine.admission.bounded import Admission
from engine.admission.tickets import Ticket
from engine.spec import StalenessSpec

MOVE_SHARE = 0.05
"""Of the events, before which a bound that moves does so."""


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
    moves_to: tuple[int, ...] = ()
    """Bounds that it moves to at random moments; none: it stays."""
    bounds: dict[int, int] = field(default_factory=dict)
    """Of each ticket, when it was given."""
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
            assert actor.ticket.max_lag is not None
            self.bounds[actor.ticket.number] = actor.ticket.max_lag
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
        assert actor.ticket.max_lag == before.max_lag, "a ticket keeps its bound"

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
        for ticket in batch.taken:
            lag = number - self.versions.pop(ticket)
            assert lag <= self.bounds[ticket], "older than the bound that it was admitted with"
            self.lags.append(lag)
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
        if self.spec.mode != "unbounded" and not self.spec.is_adaptive:
            assert max(self.lags, default=0) <= self.spec.max_lag
        if self.spec.mode == "block":
            assert self.num_dropped == 0

    def run(self, num_events: int, loss_share: float) -> None:
        """Random interleaving, each actor and the learner at a rate of its own."""
        rates = [self.choose.choice((0.02, 0.3, 1.0, 5.0)) for _ in (*self.actors, None)]
        for who in self.choose.choices((*self.actors, None), rates, k=num_events):
            if self.moves_to and self.choose.random() < MOVE_SHARE:
                self.admission.max_lag = self.choose.choice(self.moves_to)
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
