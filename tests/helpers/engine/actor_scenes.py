"""An actor and what happens to it."""

from __future__ import annotations

from engine.messages import (
    Start,
    TicketGranted,
    WeightsArrived,
)
from engine.roles.actor import ActorRole
from engine.roles.commands import (
    CollectRollout,
    Command,
)
from engine.roles.events import RolloutCollected
from engine.testing import has, make_rollout, make_weights
from engine.trace.records import Episode

EPISODE = Episode(t_s=1.0, actor=0, episode_return=3.0, length_env_steps=3, version=0)


def weights(version: int) -> WeightsArrived:
    return WeightsArrived(make_weights(version))


def ticket(number: int = 0, min_version: int = 0) -> TicketGranted:
    return TicketGranted(ticket=number, min_version=min_version)


def started() -> ActorRole:
    actor = ActorRole(0, 0, "buffer-0", "learner-0")
    actor.handle(Start(origin_ns=0), 0.0)
    return actor


def collecting(version: int = 0) -> ActorRole:
    actor = started()
    actor.handle(weights(version), 1.0)
    assert has(actor.handle(ticket(), 1.5), CollectRollout)
    return actor


def finish(actor: ActorRole, sequence: int = 0, now_s: float = 2.0) -> list[Command]:
    rollout = make_rollout(sequence=sequence, env_steps=8)
    return actor.handle(RolloutCollected(rollout, (EPISODE,)), now_s)
