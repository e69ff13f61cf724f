"""The replay buffer: who waits, what is counted, and that nothing is lost silently."""

from __future__ import annotations

import math

import numpy as np
import pytest

from engine.messages import (
    ActorLost,
    BatchRequested,
    BatchSent,
    Exit,
    PrioritiesArrived,
    ReplayDue,
    Report,
    SamplesArrived,
    StepLimitReached,
    Stop,
    Stopped,
    TicketGranted,
    TicketRequested,
    TicketVoided,
)
from engine.progress import LimiterState
from engine.replay.limiter import RateLimiter, RoundLimiter
from engine.roles.commands import (
    Command,
    DrawSamples,
    InsertRollout,
    PollReplay,
    Quit,
    SaveReplay,
    Send,
    SetPriorities,
    Wake,
)
from engine.roles.events import ReplaySaved, ReplayUnsaved, SamplesDrawn, TimerFired
from engine.roles.replay_buffer import ReplayBufferRole, SavedCounts
from engine.rollout import Priorities, Samples, SamplesInfo
from engine.testing import has, only, rollout_arrival, sent
from engine.trace.records import Event, Ledger, Replay

SAMPLES = Samples(
    SamplesInfo(env_steps=8, drawn_s=1.0, age_mean_s=0.5, age_max_s=0.75), np.zeros(1, np.uint8)
)


def make_role(step_limit: int | None = None, min_size: int = 8) -> ReplayBufferRole:
    """Rollouts of 8 steps, batches of 16 samples, 2 samples for each step."""
    limiter = RateLimiter(
        ratio=2.0, min_size=min_size, batch_samples=16, rollout_steps=8, tolerance=32.0
    )
    return ReplayBufferRole(0, limiter, 20, step_limit)


def ask(role: ReplayBufferRole, actor: int = 0) -> list[TicketGranted]:
    request = TicketRequested(actor=f"actor-{actor}", held_version=0)
    return sent(role.handle(request, 0.0), TicketGranted, f"actor-{actor}")


def insert(role: ReplayBufferRole, sequence: int) -> list[Command]:
    """A rollout of actor 0, under the ticket that it holds."""
    ask(role)
    return role.handle(rollout_arrival(sequence=sequence, ticket=sequence), 1.0)


def request(role: ReplayBufferRole, batch: int, attempt: int = 0) -> list[Command]:
    message = BatchRequested(
        learner="learner-0", batch=batch, consumed_env_steps=0, attempt=attempt
    )
    return role.handle(message, 2.0)


def rows(commands: list[Command], kind: type) -> list:
    return [r for m in sent(commands, Report) for r in m.records if isinstance(r, kind)]


def test_samples_say_what_was_consumed_before_them_also_before_the_run_was_resumed():
    """A store that goes on counts what was inserted before; that is not counted twice."""
    limiter = RateLimiter(ratio=2.0, min_size=8, batch_samples=16, rollout_steps=8, tolerance=32.0)
    counts = SavedCounts(LimiterState(inserted=24, sampled=16), has_batch=False)
    role = ReplayBufferRole(0, limiter, 20, None, share_before=40, saved=counts)
    insert(role, 0)
    assert only(request(role, 0), DrawSamples).env_steps == 40 + 8


def test_a_rollout_goes_into_the_store_and_counts_as_consumed():
    role = make_role()
    commands = insert(role, 0)
    assert only(commands, InsertRollout).rollout.info.num_env_steps == 8
    (ledger,) = rows(commands, Ledger)
    assert (ledger.collected, ledger.consumed, ledger.dropped, ledger.in_flight) == (8, 8, 0, 0)
    (replay,) = rows(commands, Replay)
    assert (replay.env_steps, replay.samples, replay.size_env_steps) == (8, 0, 8)
    assert math.isnan(replay.sample_age_mean_s)
    assert len(sent(commands, TicketGranted)) == 1, "the sender may go on at once"


def test_the_learner_waits_until_there_is_enough_and_is_then_served():
    role = make_role(min_size=16)
    assert request(role, 0) == []
    assert not has(insert(role, 0), DrawSamples)
    assert only(insert(role, 1), DrawSamples).env_steps == 16
    commands = role.handle(SamplesDrawn(SAMPLES), 3.0)
    (answer,) = sent(commands, SamplesArrived, "learner-0")
    assert answer.batch == 0
    (replay,) = rows(commands, Replay)
    assert (replay.samples, replay.samples_total, replay.replay_ratio) == (16, 16, 1.0)
    assert replay.sample_age_max_s == 0.75


def test_one_request_is_answered_once():
    role = make_role()
    insert(role, 0)
    assert has(request(role, 0), DrawSamples)
    assert not has(request(role, 0), DrawSamples), "repeated before the samples were drawn"
    assert not has(insert(role, 1), DrawSamples), "a rollout came before the samples were drawn"
    role.handle(SamplesDrawn(SAMPLES), 3.0)
    repeated = request(role, 0)
    assert sent(repeated, BatchSent, "learner-0") == [BatchSent(batch=0, attempt=0)]
    assert not has(repeated, DrawSamples)
    assert has(request(role, 1), DrawSamples)


def test_samples_that_were_lost_on_their_way_are_drawn_again_and_count_once():
    role = make_role()
    insert(role, 0)
    request(role, 0)
    role.handle(SamplesDrawn(SAMPLES), 3.0)
    assert has(request(role, 0, attempt=1), DrawSamples)
    assert not has(request(role, 0, attempt=1), DrawSamples), "repeated"
    commands = role.handle(SamplesDrawn(SAMPLES), 4.0)
    assert sent(commands, SamplesArrived, "learner-0")[0].batch == 0
    (replay,) = rows(commands, Replay)
    assert (replay.samples, replay.samples_total) == (0, 16)
    again = sent(request(role, 0, attempt=1), BatchSent, "learner-0")
    assert again == [BatchSent(batch=0, attempt=1)]
    assert has(request(role, 1), DrawSamples)


def test_actors_wait_for_a_slow_learner_and_go_on_when_it_has_trained():
    role = make_role()
    sequence = 0
    while sent(insert(role, sequence), TicketGranted):
        sequence += 1
        assert sequence < 10, "nobody ever waits"
    assert has(request(role, 0), DrawSamples)
    commands = role.handle(SamplesDrawn(SAMPLES), 3.0)
    assert sent(commands, TicketGranted, "actor-0")


def test_priorities_are_passed_on():
    priorities = Priorities(np.zeros(1, np.uint8))
    (command,) = make_role().handle(PrioritiesArrived(priorities), 0.0)
    assert command == SetPriorities(priorities)


def test_a_rollout_without_a_ticket_is_dropped_and_counted():
    role = make_role()
    commands = role.handle(rollout_arrival(ticket=5), 1.0)
    assert not has(commands, InsertRollout)
    assert rows(commands, Event)[0].kind == "drop"
    (ledger,) = rows(commands, Ledger)
    assert (ledger.collected, ledger.consumed, ledger.dropped) == (8, 0, 8)


def test_what_never_arrived_is_dropped_and_counted():
    role = make_role()
    ask(role)
    commands = role.handle(rollout_arrival(sequence=2, ticket=0), 1.0)
    assert rows(commands, Event)[0].kind == "loss"
    (ledger,) = rows(commands, Ledger)
    assert (ledger.collected, ledger.consumed, ledger.dropped) == (24, 8, 16)


def test_an_actor_that_was_given_up_is_granted_nothing():
    role = make_role()
    role.handle(ActorLost(actor="actor-0", epoch=0, collected=0), 1.0)
    assert ask(role) == []
    successor = TicketRequested(actor="actor-0", held_version=0, epoch=1)
    assert sent(role.handle(successor, 2.0), TicketGranted, "actor-0")


def test_who_does_not_get_on_is_not_given_the_next_ticket_either():
    role, sequence = make_role(), 0
    while sent(insert(role, sequence), TicketGranted):
        sequence += 1
    role.handle(TicketVoided(actor="actor-0"), 5.0)
    request(role, 0)
    assert not sent(role.handle(SamplesDrawn(SAMPLES), 6.0), TicketGranted)
    assert ask(role), "it gets on again: it has asked"


def test_a_rollout_lost_on_its_way_costs_a_ticket_and_not_its_actor():
    role = make_role()
    (lost,) = ask(role)
    again = TicketRequested(actor="actor-0", held_version=0, last_ticket=lost.ticket)
    (granted,) = sent(role.handle(again, 2.0), TicketGranted, "actor-0")
    assert granted.ticket > lost.ticket
    assert not has(role.handle(rollout_arrival(ticket=lost.ticket), 3.0), InsertRollout)
    commands = role.handle(rollout_arrival(sequence=1, ticket=granted.ticket), 4.0)
    assert has(commands, InsertRollout)
    (ledger,) = rows(commands, Ledger)
    assert (ledger.collected, ledger.consumed, ledger.dropped) == (16, 8, 8)


def test_the_step_limit_is_reported_once():
    role = make_role(step_limit=16)
    assert not sent(insert(role, 0), StepLimitReached)
    assert sent(insert(role, 1), StepLimitReached, "coordinator")
    assert not sent(insert(role, 2), StepLimitReached)


@pytest.mark.parametrize("arrives", [True, False])
def test_a_stopping_buffer_waits_for_what_was_sent(arrives: bool):
    role = make_role()
    insert(role, 0)
    assert not sent(role.handle(Stop(sent_rollouts={"actor-0": 2}), 5.0), Stopped)
    last = rollout_arrival(sequence=1, ticket=1)
    commands = role.handle(last if arrives else TimerFired(), 6.0)
    (stopped,) = sent(commands, Stopped, "coordinator")
    assert stopped.counters.consumed == (16 if arrives else 8)
    assert request(role, 0) == []
    assert ask(role) == []
    assert has(role.handle(Exit(), 9.0), Quit)


def test_rows_add_up_to_everything_that_went_in_and_out():
    role, found = make_role(), []
    for sequence in range(4):
        found += rows(insert(role, sequence), Replay)
        if has(request(role, sequence), DrawSamples):
            found += rows(role.handle(SamplesDrawn(SAMPLES), 3.0), Replay)
    found += rows(role.handle(Stop(sent_rollouts={"actor-0": 4}), 5.0), Replay)
    assert sum(row.env_steps for row in found) == found[-1].env_steps_total == 32
    assert sum(row.samples for row in found) == found[-1].samples_total
    assert found[-1].size_env_steps == 20


def make_role_in_step() -> ReplayBufferRole:
    """Rounds of two rollouts of 8 steps, which owe one batch of 16 samples each."""
    limiter = RoundLimiter(
        ratio=1.0, min_size=0, batch_samples=16, rollout_steps=8, rollouts_per_round=2
    )
    return ReplayBufferRole(0, limiter, 20, None, version=5, keeps_in_step=True)


def test_actors_in_step_are_told_to_wait_for_the_weights_of_all_that_was_drawn():
    role = make_role_in_step()
    (first,), (second,) = ask(role, 0), ask(role, 1)
    assert {first.min_version, second.min_version} == {5}
    assert not has(request(role, 5), DrawSamples), "the round is not complete"
    role.handle(rollout_arrival(actor=0, ticket=first.ticket), 1.0)
    assert ask(role, 0) == []
    commands = role.handle(rollout_arrival(actor=1, ticket=second.ticket), 1.0)
    assert has(commands, DrawSamples)
    granted = [m for actor in (0, 1) for m in sent(commands, TicketGranted, f"actor-{actor}")]
    assert [ticket.min_version for ticket in granted] == [6, 6]


@pytest.mark.parametrize("how", ["dies", "does not get on", "lost its rollout"])
def test_in_step_the_learner_is_served_when_the_last_rollout_of_a_round_will_not_come(how: str):
    role = make_role_in_step()
    (first,), _ = ask(role, 0), ask(role, 1)
    role.handle(rollout_arrival(actor=0, ticket=first.ticket, env_steps=16), 1.0)
    assert not has(request(role, 5), DrawSamples)
    event = {
        "dies": ActorLost(actor="actor-1", epoch=0, collected=0),
        "does not get on": TicketVoided(actor="actor-1"),
        "lost its rollout": TicketRequested(actor="actor-1", held_version=5, last_ticket=1),
    }[how]
    assert has(role.handle(event, 2.0), DrawSamples)


def stopped_in(commands: list[Command]) -> list[Stopped]:
    return sent(commands, Stopped, "coordinator")


def test_a_store_is_saved_as_it_is_when_the_learner_asks_and_polled_until_it_is():
    role = make_role()
    insert(role, 0)
    request(role, 0)
    role.handle(SamplesDrawn(SAMPLES), 3.0)
    save = only(role.handle(ReplayDue(version=0), 4.0), SaveReplay)
    assert (save.version, save.has_batch) == (0, True), "batch 0 trains version 0"
    assert (save.limiter.inserted, save.limiter.sampled) == (8, 16)
    assert only(role.handle(TimerFired(), 4.3), PollReplay)
    assert only(role.handle(ReplayUnsaved(), 4.3), Wake)
    (skipped,) = rows(role.handle(ReplayDue(version=1), 4.4), Event)
    assert skipped.kind == "replay-skipped"
    commands = role.handle(ReplaySaved(0, num_bytes=9, seconds=0.5), 4.5)
    assert [event.kind for event in rows(commands, Event)] == ["replay-saved"]
    assert not only(role.handle(ReplayDue(version=1), 5.0), SaveReplay).has_batch


@pytest.mark.parametrize("error", ["", "No space left on device"])
def test_the_last_store_is_saved_once_all_rollouts_are_there(error: str):
    role = make_role()
    insert(role, 0)
    assert not has(role.handle(ReplayDue(version=0), 4.0), Send)
    role.handle(ReplaySaved(0), 4.1)
    assert role.handle(ReplayDue(version=1, is_final=True), 5.0) == []
    commands = role.handle(Stop(sent_rollouts={"actor-0": 2}), 5.0)
    assert not has(commands, SaveReplay)
    commands = role.handle(rollout_arrival(sequence=1, ticket=1), 5.1)
    save = only(commands, SaveReplay)
    assert (save.version, save.limiter.inserted) == (1, 16)
    assert not stopped_in(commands)
    assert sent(role.handle(ReplayUnsaved(), 5.3), Report, "coordinator"), "it is still there"
    (stopped,) = stopped_in(role.handle(ReplaySaved(1, error=error), 5.5))
    assert stopped.error.endswith(error)
    assert bool(stopped.error) is bool(error)


@pytest.mark.parametrize("version", [0, 3], ids=["before", "same version"])
def test_a_store_that_is_being_saved_when_the_run_ends_is_finished_before_the_last_one(version):
    role = make_role()
    insert(role, 0)
    role.handle(ReplayDue(version=version), 4.0)
    role.handle(ReplayDue(version=3, is_final=True), 5.0)
    commands = role.handle(Stop(sent_rollouts={"actor-0": 1}), 5.0)
    assert not has(commands, SaveReplay)
    assert not stopped_in(commands)
    assert only(role.handle(ReplaySaved(version), 5.2), SaveReplay).version == 3
    assert stopped_in(role.handle(ReplaySaved(3), 5.4))


def test_a_resumed_store_goes_on_with_its_counts_and_reports_its_own():
    limiter = RateLimiter(ratio=2.0, min_size=8, batch_samples=16, rollout_steps=8, tolerance=32.0)
    saved = SavedCounts(LimiterState(inserted=80, sampled=160), has_batch=True)
    role = ReplayBufferRole(0, limiter, 200, 16, 7, consumed_before=80, saved=saved)
    commands = request(role, 7)
    assert has(commands, DrawSamples), "at once: the store is not empty"
    commands = role.handle(SamplesDrawn(SAMPLES), 3.0)
    (row,) = rows(commands, Replay)
    assert (row.env_steps_total, row.samples_total, row.size_env_steps) == (0, 16, 80)
    assert not sent(insert(role, 0), StepLimitReached)
    assert sent(insert(role, 1), StepLimitReached), "16 env steps were left"
    save = only(role.handle(ReplayDue(version=8), 4.0), SaveReplay)
    assert (save.env_steps_consumed, save.limiter.inserted, save.limiter.sampled) == (96, 96, 160)
