"""The buffer: who may collect, what is trained next, and books that always balance."""

from __future__ import annotations

import pytest

from engine.messages import (
    ActorLost,
    BatchArrived,
    Exit,
    TicketGranted,
    TicketRequested,
    TicketVoided,
    WeightsArrived,
)
from engine.roles.commands import Quit, Send
from engine.roles.events import TimerFired
from engine.testing import has, make_weights, sent
from tests.helpers.engine.buffer_scenes import (
    arrive,
    ask,
    filled,
    ledgers,
    make_buffer,
    notes,
    want_batch,
)


def test_nobody_waits_for_an_actor_that_does_not_get_on():
    """In mode `block` its open ticket would hold the learner up for ever."""
    buffer = make_buffer(max_lag=0)
    for actor in range(3):
        ask(buffer, actor)
    want_batch(buffer)
    arrive(buffer, actor=0, ticket=0)
    arrive(buffer, actor=1, ticket=1)
    for actor in (0, 1):
        arrive(buffer, actor=actor, ticket=3 + actor, sequence=1, version=1)
    assert sent(want_batch(buffer, batch=1, consumed=16), BatchArrived) == []
    commands = buffer.handle(TicketVoided(actor="actor-2"), 5.0)
    assert sent(commands, BatchArrived, to="learner-0")
    late = arrive(buffer, actor=2, ticket=2)
    assert notes(late) == [("drop", "actor-2")]
    assert sent(late, TicketGranted, to="actor-2"), "its next rollout is as good as any"


def test_who_does_not_get_on_is_not_given_the_next_ticket_either():
    """It waits in line when it hangs; nobody would take that ticket back a second time."""
    buffer = make_buffer(max_queued=2)
    for actor in range(3):
        ask(buffer, actor)
    buffer.handle(TicketVoided(actor="actor-2"), 5.0)
    want_batch(buffer)
    arrive(buffer, actor=0, ticket=0)
    commands = arrive(buffer, actor=1, ticket=1)
    assert sent(commands, BatchArrived, to="learner-0")
    assert sent(commands, TicketGranted, to="actor-2") == []
    ask(buffer, 2)
    arrive(buffer, actor=0, ticket=2, sequence=1)
    arrive(buffer, actor=1, ticket=3, sequence=1)
    commands = want_batch(buffer, batch=1, consumed=16)
    assert sent(commands, TicketGranted, to="actor-2"), "it gets on again: it has asked"


def test_an_actor_that_was_given_up_is_granted_nothing():
    """It may be heard after it was frozen and before it is ended; its ticket would never come."""
    buffer = make_buffer(max_lag=0)
    buffer.handle(ActorLost(actor="actor-2", epoch=1, collected=0), 1.0)
    for epoch in (0, 1):
        request = TicketRequested(actor="actor-2", held_version=0, epoch=epoch)
        assert buffer.handle(request, 1.0) == []
    for number in range(3):  # in mode `block` an open ticket would end this after one batch
        for actor in (0, 1):
            ask(buffer, actor, number)
            arrive(buffer, actor=actor, ticket=2 * number + actor, sequence=number, version=number)
        assert sent(want_batch(buffer, number, consumed=16 * number), BatchArrived)
    successor = TicketRequested(actor="actor-2", held_version=0, epoch=2)
    assert sent(buffer.handle(successor, 2.0), TicketGranted, to="actor-2")


def test_a_request_is_answered_with_a_ticket():
    assert ask(make_buffer(), 0) == [Send("actor-0", TicketGranted(ticket=0, min_version=0))]


def test_a_repeated_request_gets_the_same_ticket():
    buffer = make_buffer()
    assert ask(buffer, 0) == ask(buffer, 0)


def test_a_rollout_asks_for_the_next_ticket_by_itself():
    buffer = make_buffer()
    ask(buffer, 0)
    (ticket,) = sent(arrive(buffer, actor=0, ticket=0), TicketGranted, to="actor-0")
    assert ticket.ticket == 1


def test_who_finds_no_room_is_served_first_come_first_served_after_the_next_batch():
    buffer = make_buffer(max_queued=2)
    for actor in range(4):
        granted = sent(ask(buffer, actor), TicketGranted)
        assert bool(granted) == (actor < 2)
    arrive(buffer, actor=0, ticket=0)
    commands = arrive(buffer, actor=1, ticket=1)
    assert sent(commands, TicketGranted) == []
    commands = want_batch(buffer)
    served = [
        c.to for c in commands if isinstance(c, Send) and isinstance(c.message, TicketGranted)
    ]
    assert served == ["actor-2", "actor-3"]


def test_a_batch_needs_a_request_and_enough_rollouts():
    buffer = make_buffer()
    ask(buffer, 0)
    ask(buffer, 1)
    assert sent(want_batch(buffer), BatchArrived) == []
    assert sent(arrive(buffer, actor=0, ticket=0), BatchArrived) == []
    (batch,) = sent(arrive(buffer, actor=1, ticket=1), BatchArrived, to="learner-0")
    assert batch.batch == 0
    assert [rollout.info.actor for rollout in batch.rollouts] == [0, 1]


def test_a_batch_waits_for_the_request():
    (batch,) = sent(want_batch(filled()), BatchArrived, to="learner-0")
    assert batch.batch == 0


def test_a_repeated_request_does_not_get_a_second_batch():
    buffer = filled()
    want_batch(buffer)
    arrive(buffer, actor=0, ticket=2, sequence=1)
    arrive(buffer, actor=1, ticket=3, sequence=1)
    assert sent(want_batch(buffer, batch=0), BatchArrived) == []
    (batch,) = sent(want_batch(buffer, batch=1, consumed=16), BatchArrived)
    assert batch.batch == 1


def test_the_books_balance_at_every_batch():
    buffer = filled()
    (row,) = ledgers(want_batch(buffer, 0, consumed=0))
    assert (row.collected, row.consumed, row.dropped, row.in_flight) == (16, 0, 0, 16)
    arrive(buffer, actor=0, ticket=2, sequence=1, env_steps=7, total=15)
    arrive(buffer, actor=1, ticket=3, sequence=1, env_steps=8, total=16)
    (row,) = ledgers(want_batch(buffer, 1, consumed=16))
    assert (row.collected, row.consumed, row.dropped, row.in_flight) == (31, 16, 0, 15)


def test_a_gap_in_what_an_actor_says_it_collected_was_lost_on_the_way():
    buffer = make_buffer()
    ask(buffer, 0)
    ask(buffer, 1)
    assert notes(arrive(buffer, actor=0, ticket=0, sequence=2, env_steps=8, total=24)) == [
        ("loss", "actor-0")
    ]
    arrive(buffer, actor=1, ticket=1, env_steps=8)
    (row,) = ledgers(want_batch(buffer))
    assert (row.collected, row.dropped, row.in_flight) == (32, 16, 16)


def test_a_restarted_actor_begins_its_count_anew():
    buffer = filled()
    commands = arrive(buffer, actor=0, ticket=2, epoch=1, sequence=0, env_steps=8, total=8)
    assert notes(commands) == []
    (row,) = ledgers(want_batch(buffer))
    assert row.collected == 24


def test_a_rollout_without_an_open_ticket_is_dropped_and_said_so():
    buffer = filled()
    commands = arrive(buffer, actor=0, ticket=99, sequence=1, env_steps=8, total=16)
    assert notes(commands) == [("drop", "actor-0")]
    (row,) = ledgers(want_batch(buffer))
    assert (row.collected, row.dropped, row.in_flight) == (24, 8, 16)


def test_a_duplicate_is_never_trained():
    buffer = make_buffer()
    ask(buffer, 0)
    want_batch(buffer)
    arrive(buffer, actor=0, ticket=0)
    commands = arrive(buffer, actor=0, ticket=0)
    assert sent(commands, BatchArrived) == []
    assert notes(commands) == [("duplicate", "actor-0")]


def test_block_waits_for_a_straggler_that_would_come_too_late():
    buffer = make_buffer("block", max_lag=0)
    for actor in range(3):
        ask(buffer, actor)
    want_batch(buffer)
    arrive(buffer, actor=1, ticket=1)
    assert sent(arrive(buffer, actor=2, ticket=2, version=1), BatchArrived) == []
    (batch,) = sent(arrive(buffer, actor=0, ticket=0), BatchArrived)
    assert [rollout.info.actor for rollout in batch.rollouts] == [0, 1]


def test_drop_goes_on_without_a_straggler_and_counts_what_it_brings_later():
    buffer = make_buffer("drop", max_lag=0)
    for actor in range(3):
        ask(buffer, actor)
    arrive(buffer, actor=1, ticket=1)
    arrive(buffer, actor=2, ticket=2)
    (batch,) = sent(want_batch(buffer), BatchArrived)
    assert [rollout.info.actor for rollout in batch.rollouts] == [1, 2]
    want_batch(buffer, batch=1, consumed=16)
    commands = arrive(buffer, actor=0, ticket=0)
    assert notes(commands) == [("drop", "actor-0")]
    (row,) = ledgers(commands)
    assert (row.collected, row.consumed, row.dropped, row.in_flight) == (24, 16, 8, 0)


def test_a_timer_while_it_runs_means_nothing():
    assert filled().handle(TimerFired(), 5.0) == []


def test_exit_ends_it():
    assert has(make_buffer().handle(Exit(), 1.0), Quit)


def test_what_is_not_meant_for_it_shows_that_the_program_is_wrong():
    with pytest.raises(RuntimeError, match="buffer-0 cannot handle WeightsArrived"):
        make_buffer().handle(WeightsArrived(make_weights(1)), 0.0)
