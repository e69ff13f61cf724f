"""What a buffer does whatever it keeps: tickets for its actors, the ledger, and how it ends."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

from engine.messages import (
    COORDINATOR,
    ActorLost,
    BatchRequested,
    Counters,
    Exit,
    RolloutArrived,
    Start,
    Stop,
    Stopped,
    TicketRequested,
    TicketVoided,
)
from engine.roles.commands import Command, ForgetActor, Quit, Send, Wake
from engine.roles.events import Event, TimerFired
from engine.roles.rollout_ledger import RolloutLedger
from engine.rollout import RolloutInfo

DRAIN_S = 2.0
"""How long a stopping buffer waits for rollouts that actors report as sent."""


class Gate(Protocol):
    """Gives tickets: `engine.admission` or `engine.replay.limiter.RateLimiter`."""

    def lose(self, owner: str) -> None:
        """Drops the ticket that `owner` holds."""
        ...

    def lose_sent(self, owner: str, last_sent: int) -> object:
        """Drops it if its rollout was sent, and so was lost in transit."""
        ...


class TicketBuffer(ABC):
    """A buffer that actors ask for tickets and the learner for batches.

    Args:
        index: Its number.
        gate: Decides who gets a ticket.
    """

    def __init__(self, index: int, gate: Gate) -> None:
        self.address = f"buffer-{index}"
        self._index = index
        self._gate = gate
        self._waiting: dict[str, int] = {}
        """Actors that wait for a ticket, in order, with the version that they hold."""
        self._rollout_ledger = RolloutLedger(self.address)
        self._lost_epochs: dict[str, int] = {}
        self._request: BatchRequested | None = None
        self._stop: Stop | None = None
        self._is_finished = False

    def handle(self, event: Event, now_s: float) -> list[Command]:
        """Handles one event, as the table of the subclass's `handle` says.

        Raises:
            RuntimeError: It is no event for a buffer.
        """
        if self._is_finished:
            return [Quit()] if isinstance(event, Exit) else []
        match event:
            case RolloutArrived():
                return self._arrived(event, now_s)
            case TicketRequested():
                return self._asked(event, now_s)
            case Start():
                return []
            case ActorLost():
                return self._lose(event, now_s)
            case TicketVoided(actor=actor):
                return self._void(actor, now_s)
            case Stop():
                self._stop = event
                return [*self._finish_if_drained(now_s), Wake(DRAIN_S)]
            case TimerFired():
                return self._finish(now_s) if self._stop else []
            case Exit():
                return [Quit()]
        raise RuntimeError(f"{self.address} cannot handle {type(event).__name__}")

    @abstractmethod
    def _take_in(self, event: RolloutArrived, now_s: float) -> list[Command]:
        """Keeps a rollout that is here for the first time, or drops it."""

    @abstractmethod
    def _serve(self, now_s: float) -> list[Command]:
        """Gives the learner a batch if it requested one and may have it."""

    @abstractmethod
    def _grant(self) -> list[Command]:
        """Gives tickets to those that wait, first come first served, while there is room."""

    @abstractmethod
    def _last_words(self, now_s: float) -> tuple[list[Command], Counters]:
        """What is to be reported when it ends, and its final counts."""

    def _serve_all(self, now_s: float) -> list[Command]:
        """Learner and actors; called after every change."""
        return [*self._serve(now_s), *self._grant()]

    def _serve_arrival(self, now_s: float) -> list[Command]:
        """The same after a rollout was taken in."""
        return self._serve_all(now_s)

    def _drop_without_ticket(self, info: RolloutInfo, now_s: float) -> list[Command]:
        return [self._rollout_ledger.drop(info, now_s, "it has no open ticket")]

    def _asked(self, event: TicketRequested, now_s: float) -> list[Command]:
        if event.epoch <= self._lost_epochs.get(event.actor, -1):
            return []  # a ticket of a lost incarnation would never be freed
        self._waiting[event.actor] = event.held_version
        self._gate.lose_sent(event.actor, event.last_ticket)
        return self._serve_all(now_s)

    def _arrived(self, event: RolloutArrived, now_s: float) -> list[Command]:
        info = event.info
        entry = self._rollout_ledger.enter(info, now_s)
        if not entry.is_new:
            return list(entry.notes)
        commands = [*entry.notes, *self._take_in(event, now_s)]
        if self._stop:
            return [*commands, *self._finish_if_drained(now_s)]
        self._waiting[f"actor-{info.actor}"] = event.held_version
        return [*commands, *self._serve_arrival(now_s)]

    def _lose(self, event: ActorLost, now_s: float) -> list[Command]:
        """Stops waiting for the rollouts that a dead actor held; what arrived of it is kept."""
        commands = self._rollout_ledger.lose(event, now_s)
        if event.epoch > self._lost_epochs.get(event.actor, -1):
            self._lost_epochs[event.actor] = event.epoch
            number = int(event.actor.rpartition("-")[2])
            commands.append(ForgetActor(number, event.epoch))
            self._gate.lose(event.actor)
            self._waiting.pop(event.actor, None)
        if self._stop:
            return [*commands, *self._finish_if_drained(now_s)]
        return [*commands, *self._serve_all(now_s)]

    def _void(self, actor: str, now_s: float) -> list[Command]:
        """Stops waiting for the ticket and request of an actor that makes no progress."""
        self._do_without(actor)
        self._waiting.pop(actor, None)
        return [] if self._stop else self._serve_all(now_s)

    def _do_without(self, actor: str) -> None:
        """Drops the ticket of an actor that is alive."""
        self._gate.lose(actor)

    def _finish_if_drained(self, now_s: float) -> list[Command]:
        assert self._stop is not None
        return self._finish(now_s) if self._rollout_ledger.has_all(self._stop.sent_rollouts) else []

    def _finish(self, now_s: float) -> list[Command]:
        assert self._stop is not None
        self._is_finished = True
        notes = self._rollout_ledger.close(self._stop.sent_env_steps, now_s)
        reports, counters = self._last_words(now_s)
        stopped = Stopped(address=self.address, counters=counters)
        return [*notes, *reports, Send(COORDINATOR, stopped)]
