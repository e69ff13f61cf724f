"""A moving bound on lag: the learner decides, the buffer follows, each rollout keeps its own."""

from __future__ import annotations

import pytest
from msgspec import UNSET
from msgspec.structs import replace

from engine.admission.adaptive import WINDOW_BATCHES, WINDOWS
from engine.messages import (
    COORDINATOR,
    BatchArrived,
    BatchRequested,
    Report,
    Start,
    TicketGranted,
    WeightsArrived,
)
from engine.roles.actor import ActorRole
from engine.roles.buffer import BufferRole
from engine.roles.commands import Command, Log
from engine.roles.events import RolloutCollected, Updated, WeightsExported
from engine.roles.learner import LearnerRole
from engine.rollout import Rollout
from engine.spec import StalenessSpec, StopSpec
from engine.testing import has, make_experiment, make_rollout, make_weights, only, sent
from engine.trace.records import LAG_BOUND, Production
from engine.trace.records import Event as TraceEvent
from tests.helpers.engine.buffer_scenes import ask

AUTO = StalenessSpec(max_lag="auto")
UPDATE_S = 0.2


def make_learner(staleness: StalenessSpec = AUTO) -> LearnerRole:
    experiment = make_experiment(staleness=staleness, stop=StopSpec(return_threshold=1e9))
    learner = LearnerRole(0, experiment, "buffer-0")
    learner.handle(Start(origin_ns=0), 0.0)
    learner.handle(WeightsExported(make_weights(0)), 0.0)
    return learner


def rollout(number: int, wait_s: float, collect_s: float) -> Rollout:
    """The next of an actor that waits and collects for so long by turns."""
    made = make_rollout(sequence=number, version=number)
    start_s = number * (wait_s + collect_s)
    info = replace(made.info, start_s=start_s, end_s=start_s + collect_s)
    return Rollout(info, made.buffer)


def train(
    learner: LearnerRole,
    batches: int,
    *,
    wait_s: float = 0.2,
    held_s: float = 0.1,
    first: int = 0,
    ess: float = 1.0,
) -> list[Command]:
    """Batches that the learner waits for, each a rollout whose actor was held back before it."""
    commands: list[Command] = []
    for number in range(first, first + batches):
        begin_s = number * (wait_s + UPDATE_S) + wait_s
        one = rollout(number, held_s, 0.1)
        commands += learner.handle(BatchArrived(number, (one,)), begin_s)
        done = Updated(
            weights=make_weights(number + 1),
            samples_trained=8,
            num_updates=number + 1,
            num_updates_before=number,
            update_s=UPDATE_S,
            metrics={"ess": ess},
        )
        commands += learner.handle(done, begin_s + UPDATE_S)
    return commands


def decided(commands: list[Command]) -> list[TraceEvent]:
    rows = [row for report in sent(commands, Report, to=COORDINATOR) for row in report.records]
    return [row for row in rows if isinstance(row, TraceEvent) and row.kind == LAG_BOUND]


def asked(commands: list[Command]) -> list[int | None]:
    return [request.max_lag for request in sent(commands, BatchRequested, to="buffer-0")]


ENOUGH = 1 + WINDOWS * WINDOW_BATCHES
"""Batches after which a learner decides for the first time: the first one begins a window."""


def test_a_learner_that_waits_while_actors_are_held_back_tries_a_larger_bound():
    learner = make_learner()
    before = train(learner, ENOUGH - 1)
    assert set(asked(before)) == {1}
    assert decided(before) == []
    commands = train(learner, 1, first=ENOUGH - 1)
    (event,) = decided(commands)
    assert (event.max_lag_before, event.max_lag, event.role) == (1, 2, "learner-0")
    assert event.detail == (
        "2 instead of 1: a trial: the learner waited 50% of the time, actors 50%,"
        " effective sample size 100%"
    )
    assert only(commands, Log).text == f"staleness.max_lag {event.detail}"
    assert asked(train(learner, 1, first=ENOUGH)) == [2], "and the buffer is told"


@pytest.mark.parametrize("waits", [{"wait_s": 0.0}, {"held_s": 0.0}, {"ess": 0.4}])
def test_it_tries_none_if_only_one_side_waits_or_samples_are_worth_little(
    waits: dict[str, float],
):
    commands = train(make_learner(), 3 * ENOUGH, **waits)
    assert decided(commands) == []
    assert set(asked(commands)) == {1}


def test_a_trial_that_changes_nothing_ends_where_it_began():
    commands = train(make_learner(), 3 * ENOUGH)
    first, second, *_ = decided(commands)
    assert (second.max_lag_before, second.max_lag) == (2, 1)
    assert second.detail.startswith("1 instead of 2: 2 does not pay: 20 env steps/s with 2 and 20")
    assert [first.max_lag, second.max_lag] == [2, 1]


def test_with_a_number_neither_requests_nor_tickets_nor_traces_say_anything_more():
    commands = train(make_learner(StalenessSpec(max_lag=1)), 2 * ENOUGH)
    assert set(asked(commands)) == {None}
    assert not has(commands, Log)
    (ticket,) = sent(ask(BufferRole(0, StalenessSpec(max_lag=1), 1), 0), TicketGranted)
    assert ticket.max_lag is None
    assert production_of(ticket).max_lag is UNSET


def production_of(ticket: TicketGranted) -> Production:
    """The row of the rollout that an actor collects with this ticket."""
    actor = ActorRole(0, 0, "buffer-0", "learner-0")
    actor.handle(Start(origin_ns=0), 0.0)
    actor.handle(WeightsArrived(make_weights(ticket.min_version)), 0.0)
    actor.handle(ticket, 0.0)
    commands = actor.handle(RolloutCollected(make_rollout(ticket=ticket.ticket), ()), 1.0)
    (report,) = sent(commands, Report, to=COORDINATOR)
    (row,) = report.records
    assert isinstance(row, Production)
    return row


def test_a_rollout_keeps_and_traces_the_bound_that_it_was_admitted_with():
    buffer = BufferRole(0, AUTO, 1)
    (first,) = sent(ask(buffer, 0), TicketGranted)
    request = BatchRequested(learner="learner-0", batch=0, consumed_env_steps=0, max_lag=4)
    buffer.handle(request, 1.0)
    (second,) = sent(ask(buffer, 1), TicketGranted)
    assert [first.max_lag, second.max_lag] == [1, 4]
    assert sent(ask(buffer, 0), TicketGranted) == [first], "also if it asks again"
    assert [production_of(ticket).max_lag for ticket in (first, second)] == [1, 4]
