"""A buffer and what happens to it."""

from __future__ import annotations

from engine.messages import (
    COORDINATOR,
    BatchRequested,
    Counters,
    Report,
    Start,
    Stop,
    Stopped,
    TicketRequested,
)
from engine.roles.buffer import BufferRole
from engine.roles.commands import Command
from engine.spec import StalenessSpec
from engine.testing import rollout_arrival, sent
from engine.trace.records import Event as TraceEvent
from engine.trace.records import Ledger


def make_buffer(mode: str = "block", max_lag: int = 1, max_queued: int = 8) -> BufferRole:
    """Two rollouts make a batch."""
    spec = StalenessSpec(mode=mode, max_lag=max_lag, max_queued_rollouts=max_queued)
    buffer = BufferRole(0, spec, 2)
    assert buffer.handle(Start(origin_ns=0), 0.0) == []
    return buffer


def ask(buffer: BufferRole, actor: int, held_version: int = 0) -> list[Command]:
    return buffer.handle(TicketRequested(actor=f"actor-{actor}", held_version=held_version), 1.0)


def arrive(buffer: BufferRole, **description: int) -> list[Command]:
    return buffer.handle(rollout_arrival(**description), 2.0)


def want_batch(buffer: BufferRole, batch: int = 0, consumed: int = 0) -> list[Command]:
    request = BatchRequested(learner="learner-0", batch=batch, consumed_env_steps=consumed)
    return buffer.handle(request, 3.0)


def filled(mode: str = "block", **options: int) -> BufferRole:
    """Actors 0 and 1 have sent a rollout of 8 steps each, under tickets 0 and 1."""
    buffer = make_buffer(mode, **options)
    for actor in range(2):
        ask(buffer, actor)
        arrive(buffer, actor=actor, ticket=actor)
    return buffer


def ledgers(commands: list[Command]) -> list[Ledger]:
    rows = [row for report in sent(commands, Report, to=COORDINATOR) for row in report.records]
    found = [row for row in rows if isinstance(row, Ledger)]
    for row in found:
        assert row.collected == row.consumed + row.dropped + row.in_flight, row
    return found


def notes(commands: list[Command]) -> list[tuple[str, str]]:
    rows = [row for report in sent(commands, Report, to=COORDINATOR) for row in report.records]
    return [(row.kind, row.role) for row in rows if isinstance(row, TraceEvent)]


def stop(buffer: BufferRole, consumed: int = 0, **sent_rollouts: int) -> list[Command]:
    by_actor = {name.replace("_", "-"): count for name, count in sent_rollouts.items()}
    return buffer.handle(Stop(sent_rollouts=by_actor, consumed_env_steps=consumed), 9.0)


def last_word(commands: list[Command]) -> Counters:
    (answer,) = sent(commands, Stopped, to=COORDINATOR)
    assert answer.address == "buffer-0"
    return answer.counters
