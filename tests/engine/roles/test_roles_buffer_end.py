"""The buffer in the end: it waits for what was sent, counts what is left and what never came."""

from __future__ import annotations

from engine.messages import ActorLost, BatchArrived, Stop, Stopped, TicketGranted
from engine.roles.commands import Wake
from engine.roles.events import TimerFired
from engine.roles.ticket_buffer import DRAIN_S
from engine.testing import sent
from tests.helpers.engine.buffer_scenes import (
    arrive,
    ask,
    filled,
    last_word,
    make_buffer,
    notes,
    stop,
    want_batch,
)


def test_stopping_it_tells_what_is_queued_and_what_the_learner_did_not_train_on():
    buffer = filled()
    want_batch(buffer)
    arrive(buffer, actor=0, ticket=2, sequence=1)
    counters = last_word(stop(buffer, consumed=0, actor_0=2, actor_1=1))
    assert (counters.queued, counters.staged, counters.dropped) == (8, 16, 0)


def test_stopping_it_believes_the_learner_s_final_count():
    buffer = filled()
    want_batch(buffer)
    counters = last_word(stop(buffer, consumed=16, actor_0=1, actor_1=1))
    assert (counters.queued, counters.staged) == (0, 0)


def test_stopping_it_waits_for_rollouts_that_are_still_on_their_way():
    buffer = filled()
    commands = stop(buffer, actor_0=2, actor_1=1)
    assert sent(commands, Stopped) == []
    assert Wake(DRAIN_S) in commands
    commands = arrive(buffer, actor=0, ticket=2, sequence=1)
    assert last_word(commands).queued == 24
    assert sent(commands, TicketGranted) == []
    assert sent(buffer.handle(TimerFired(), 20.0), Stopped) == [], "it has said so already"


def test_stopping_it_does_not_wait_for_ever():
    buffer = filled()
    stop(buffer, actor_0=5)
    counters = last_word(buffer.handle(TimerFired(), 9.0 + DRAIN_S))
    assert counters.queued == 16


def test_stopping_it_counts_what_never_arrived():
    buffer = filled()
    counts = {"actor-0": 24, "actor-1": 8, "actor-2": 5}
    sent_rollouts = {"actor-0": 3, "actor-1": 1, "actor-2": 1}
    buffer.handle(Stop(sent_rollouts=sent_rollouts, sent_env_steps=counts), 9.0)
    commands = buffer.handle(TimerFired(), 9.0 + DRAIN_S)
    assert notes(commands) == [("loss", "actor-0"), ("loss", "actor-2")]
    counters = last_word(commands)
    assert (counters.queued, counters.dropped) == (16, 16 + 5)
    assert arrive(buffer, actor=0, ticket=2, sequence=1) == [], "it is too late to count it again"


def test_stopping_it_counts_for_each_incarnation_of_an_actor_apart():
    buffer = filled()
    buffer.handle(ActorLost(actor="actor-0", epoch=0, collected=8), 5.0)
    arrive(buffer, actor=0, ticket=2, epoch=1)
    last = Stop(sent_rollouts={"actor-0": 1}, sent_env_steps={"actor-0": 8, "actor-1": 8})
    counters = last_word(buffer.handle(last, 9.0))
    assert (counters.queued, counters.dropped) == (24, 0)


def test_stopping_it_hands_out_no_batch():
    buffer = make_buffer()
    ask(buffer, 0)
    ask(buffer, 1)
    want_batch(buffer)
    arrive(buffer, actor=0, ticket=0)
    stop(buffer, actor_0=1, actor_1=1)
    commands = arrive(buffer, actor=1, ticket=1)
    assert sent(commands, BatchArrived) == []
    assert last_word(commands).queued == 16
