"""With a fixed lag an actor collects with the weights that its ticket names, and a learner has them
for it; whatever order things come in."""

from __future__ import annotations

from engine.messages import (
    Start,
    TicketGranted,
    TicketRequested,
    WeightsArrived,
    WeightsRequested,
)
from engine.roles.actor import RETRY_S, ActorRole
from engine.roles.commands import CollectRollout, Command, LoadWeights, Send, Wake
from engine.roles.events import TimerFired
from engine.roles.subscribers import Subscribers
from engine.testing import has, make_weights, only, sent
from tests.helpers.engine.actor_scenes import finish, weights


def started() -> ActorRole:
    actor = ActorRole(0, 0, "buffer-0", "learner-0", has_fixed_lag=True)
    assert actor.handle(Start(origin_ns=0), 0.0) == [
        Wake(RETRY_S),
        Send("buffer-0", TicketRequested(actor="actor-0", held_version=-1)),
    ], "only a ticket says which weights it needs"
    return actor


def ticket(number: int, version: int) -> TicketGranted:
    return TicketGranted(ticket=number, min_version=version, next_version=version + 1)


def wanted(commands: list[Command]) -> list[int | None]:
    return [request.version for request in sent(commands, WeightsRequested, to="learner-0")]


def collecting(version: int = 0) -> ActorRole:
    actor = started()
    assert wanted(actor.handle(ticket(0, version), 1.0)) == [version]
    commands = actor.handle(weights(version), 1.5)
    assert only(commands, LoadWeights).weights.version == version
    assert has(commands, CollectRollout)
    assert wanted(commands) == [version + 1], "those of the next rollout, while it collects"
    return actor


def test_the_next_weights_are_there_when_the_next_ticket_comes():
    actor = collecting()
    assert actor.handle(weights(1), 1.7) == []
    finish(actor)
    commands = actor.handle(ticket(1, 1), 2.5)
    assert only(commands, LoadWeights).weights.version == 1
    assert only(commands, CollectRollout).ticket == 1
    assert wanted(commands) == [2]


def test_newer_weights_than_those_of_the_ticket_are_not_loaded():
    actor = collecting()
    finish(actor)
    assert actor.handle(weights(5), 2.1) == []
    assert actor.handle(ticket(1, 1), 2.2) == [], "it has requested them and waits"
    assert actor.handle(weights(2), 2.3) == []
    assert only(actor.handle(weights(1), 2.4), LoadWeights).weights.version == 1


def test_weights_that_are_loaded_already_are_used_again():
    actor = collecting()
    actor.handle(weights(1), 1.7)
    finish(actor)
    again = actor.handle(TicketGranted(ticket=1, min_version=0, next_version=1), 2.5)
    assert has(again, CollectRollout)
    assert not has(again, LoadWeights)
    assert wanted(again) == [], "the next ones are here"
    finish(actor, sequence=1)
    assert only(actor.handle(ticket(2, 1), 4.0), LoadWeights).weights.version == 1


def test_a_ticket_for_other_weights_than_foretold_gets_those():
    actor = collecting()
    actor.handle(weights(1), 1.7)
    finish(actor)
    assert wanted(actor.handle(ticket(1, 3), 2.5)) == [3]
    assert actor.handle(weights(1), 2.6) == []
    assert only(actor.handle(weights(3), 2.7), LoadWeights).weights.version == 3


def test_a_request_for_weights_is_repeated_while_it_waits_for_them():
    actor = collecting()
    finish(actor)
    actor.handle(ticket(1, 1), 2.5)
    assert wanted(actor.handle(TimerFired(), 2.0 + RETRY_S)) == [1]


def ask(subscribers: Subscribers, actor: str, version: int | None) -> list[Command]:
    request = WeightsRequested(actor=actor, held_version=-1, version=version)
    return subscribers.ask(request)


def versions(commands: list[Command]) -> list[tuple[str, int]]:
    assert all(isinstance(command.message, WeightsArrived) for command in commands)
    return [(command.to, command.message.weights.version) for command in commands]


def test_each_gets_the_version_that_it_requested_and_no_other():
    subscribers = Subscribers(num_kept=2)
    assert ask(subscribers, "evaluator-0", None) == []
    assert ask(subscribers, "actor-0", 0) == ask(subscribers, "actor-1", 1) == []
    assert versions(subscribers.publish(make_weights(0))) == [("evaluator-0", 0), ("actor-0", 0)]
    assert versions(subscribers.publish(make_weights(1))) == [("evaluator-0", 1), ("actor-1", 1)]
    assert versions(ask(subscribers, "actor-0", 0)) == [("actor-0", 0)], "it is still kept"
    assert versions(subscribers.publish(make_weights(2))) == [("evaluator-0", 2)]
    assert ask(subscribers, "actor-1", 0) == [], "no rollout to come needs these"
    assert len(subscribers) == 3
    assert subscribers.newest.version == 2
