"""The actor: events in, commands out."""

from __future__ import annotations

import pytest

from engine.messages import (
    COORDINATOR,
    BatchRequested,
    Exit,
    Report,
    RolloutArrived,
    Start,
    Stop,
    Stopped,
    TicketRequested,
    WeightsRequested,
)
from engine.roles.actor import RETRY_S, ActorRole
from engine.roles.commands import (
    AbandonRollout,
    CollectRollout,
    Command,
    LoadWeights,
    Quit,
    Send,
    Wake,
)
from engine.roles.events import RolloutAbandoned, RolloutCollected, TimerFired
from engine.testing import has, make_rollout, only, sent
from engine.trace.records import Production
from tests.helpers.engine.actor_scenes import EPISODE, collecting, finish, started, ticket, weights


def stop(actor: ActorRole, num_env_steps: int = 0) -> Stopped:
    assert actor.handle(Stop(), 3.0) == [AbandonRollout()]
    commands = actor.handle(RolloutAbandoned(num_env_steps, 0.5, ()), 3.0)
    return only_message(commands)


def only_message(commands: list[Command]) -> Stopped:
    (answer,) = sent(commands, Stopped, to=COORDINATOR)
    return answer


def test_at_the_start_it_asks_for_weights_and_a_ticket():
    actor = ActorRole(0, 0, "buffer-0", "learner-0")
    assert actor.handle(Start(origin_ns=0), 0.0) == [
        Send("learner-0", WeightsRequested(actor="actor-0", held_version=-1)),
        Wake(RETRY_S),
        Send("buffer-0", TicketRequested(actor="actor-0", held_version=-1)),
    ]


def test_it_says_which_incarnation_asks():
    (request,) = sent(
        ActorRole(0, 3, "buffer-0", "learner-0").handle(Start(origin_ns=0), 0.0), TicketRequested
    )
    assert (request.epoch, request.last_ticket) == (3, -1)


def test_it_says_which_rollout_it_has_sent_when_it_asks_again():
    actor = collecting()
    finish(actor)
    (request,) = sent(actor.handle(TimerFired(), 2.0 + RETRY_S), TicketRequested)
    assert request.last_ticket == 0


def test_it_needs_both_a_ticket_and_weights():
    for first, second in ((ticket(), weights(0)), (weights(0), ticket())):
        actor = started()
        assert actor.handle(first, 1.0) == []
        commands = actor.handle(second, 2.0)
        assert only(commands, LoadWeights).weights.version == 0
        assert only(commands, CollectRollout).ticket == 0


@pytest.mark.parametrize("held", [-1, 0, 3, 4])
def test_it_never_starts_below_the_ticket_s_version(held: int):
    actor = started()
    if held >= 0:
        actor.handle(weights(held), 1.0)
    assert actor.handle(ticket(7, min_version=5), 1.0) == []
    commands = actor.handle(weights(5), 2.0)
    assert only(commands, CollectRollout).ticket == 7


def test_without_weights_it_does_not_even_start_on_a_ticket_for_any_version():
    actor = started()
    assert actor.handle(ticket(0, min_version=-3), 1.0) == []


def test_newer_weights_wait_for_the_rollout_boundary_and_the_latest_wins():
    actor = collecting(version=0)
    for version in (1, 2, 3):
        assert actor.handle(weights(version), 1.7) == []
    commands = finish(actor)
    assert not has(commands, LoadWeights)
    (arrival,) = sent(commands, RolloutArrived, to="buffer-0")
    assert arrival.held_version == 3
    commands = actor.handle(ticket(1), 2.0)
    assert only(commands, LoadWeights).weights.version == 3


def test_weights_are_loaded_before_collecting():
    actor = started()
    actor.handle(weights(0), 1.0)
    commands = actor.handle(ticket(), 1.0)
    assert [type(command) for command in commands] == [LoadWeights, CollectRollout]


def test_older_or_equal_weights_are_ignored():
    actor = collecting(version=4)
    actor.handle(weights(3), 1.7)
    actor.handle(weights(4), 1.7)
    finish(actor)
    assert not has(actor.handle(ticket(1, min_version=4), 2.0), LoadWeights)


def test_without_newer_weights_it_goes_on_with_those_it_has():
    actor = collecting(version=0)
    finish(actor)
    assert actor.handle(ticket(1), 2.0) == [CollectRollout(1)]


def test_a_finished_rollout_is_sent_reported_and_asks_for_the_next_ticket():
    actor = started()
    actor.handle(weights(2), 1.0)
    actor.handle(ticket(), 1.5)
    rollout = make_rollout(env_steps=8, version=2)
    commands = actor.handle(RolloutCollected(rollout, (EPISODE,)), 2.0)
    (arrival,) = sent(commands, RolloutArrived, to="buffer-0")
    assert arrival.rollout is rollout
    assert arrival.held_version == 2
    (report,) = sent(commands, Report, to=COORDINATOR)
    production, episode = report.records
    assert episode is EPISODE
    assert isinstance(production, Production)
    assert production.env_steps == production.env_steps_total == 8
    assert production.version_min == production.version_max == 2
    assert production.wait_s == 1.5
    assert production.sent
    assert only(commands, Wake).after_s == RETRY_S


def test_production_counts_on():
    actor = collecting()
    finish(actor, 0)
    actor.handle(ticket(1), 2.0)
    (report,) = sent(finish(actor, 1, now_s=5.0), Report)
    row = report.records[0]
    assert isinstance(row, Production)
    assert row.env_steps_total == 16
    assert row.sequence == 1


def test_requests_are_repeated_while_it_waits():
    actor = started()
    assert actor.handle(TimerFired(), RETRY_S) == ActorRole(0, 0, "buffer-0", "learner-0").handle(
        Start(origin_ns=0), 0.0
    )


def test_with_a_ticket_in_hand_it_asks_whether_older_weights_will_do():
    actor = started()
    actor.handle(ticket(0, min_version=2), 1.0)
    actor.handle(weights(1), 1.0)
    commands = actor.handle(TimerFired(), RETRY_S)
    assert sent(commands, WeightsRequested) == [WeightsRequested(actor="actor-0", held_version=1)]
    assert sent(commands, TicketRequested) == [TicketRequested(actor="actor-0", held_version=1)]
    assert has(commands, Wake)
    assert has(actor.handle(ticket(0, min_version=1), RETRY_S), CollectRollout)


def test_a_timer_while_collecting_or_stopped_does_nothing():
    actor = collecting()
    assert actor.handle(TimerFired(), 9.0) == []
    stop(actor)
    assert actor.handle(TimerFired(), 9.0) == []


def test_a_ticket_while_collecting_is_the_answer_to_a_repeated_request():
    actor = collecting()
    assert actor.handle(ticket(0), 1.8) == []
    finish(actor)
    assert not has(actor.handle(weights(1), 2.0), CollectRollout)


def test_stopped_before_the_start_it_has_nothing_to_tell():
    answer = stop(ActorRole(0, 0, "buffer-0", "learner-0"))
    assert answer.address == "actor-0"
    assert answer.counters.collected == answer.counters.sent_rollouts == 0


def test_stopped_while_waiting_it_tells_what_it_sent():
    actor = collecting()
    finish(actor)
    counters = stop(actor).counters
    assert (counters.collected, counters.unsent, counters.sent_rollouts) == (8, 0, 1)


def test_stopped_while_collecting_it_counts_the_unfinished_rollout():
    actor = collecting()
    finish(actor)
    actor.handle(ticket(1), 2.0)
    actor.handle(Stop(), 3.0)
    commands = actor.handle(RolloutAbandoned(5, 0.5, (EPISODE,)), 3.0)
    (report,) = sent(commands, Report, to=COORDINATOR)
    row, episode = report.records
    assert isinstance(row, Production)
    assert (row.env_steps, row.env_steps_total, row.sent) == (5, 13, False)
    assert episode is EPISODE
    counters = only_message(commands).counters
    assert (counters.collected, counters.unsent, counters.sent_rollouts) == (13, 5, 1)
    assert sent(commands, RolloutArrived) == []


def test_once_stopped_nothing_makes_it_collect():
    actor = collecting()
    stop(actor)
    assert actor.handle(ticket(1), 4.0) == []
    assert actor.handle(weights(9), 4.0) == []


def test_exit_ends_it_in_any_state():
    for actor in (ActorRole(0, 0, "buffer-0", "learner-0"), started(), collecting()):
        assert actor.handle(Exit(), 5.0) == [Quit()]


def test_what_is_not_meant_for_it_shows_that_the_program_is_wrong():
    request = BatchRequested(learner="learner-0", batch=0, consumed_env_steps=0)
    with pytest.raises(RuntimeError, match="actor-0 cannot handle BatchRequested"):
        started().handle(request, 0.0)
