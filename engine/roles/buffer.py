"""The buffer as a rollout queue: admits, stores, hands over, and keeps the ledger.

Only the buffer sees every env step between actor and learner, so it keeps the ledger of the run.
"""

from __future__ import annotations

from engine.admission import Admission
from engine.messages import (
    COORDINATOR,
    ActorLost,
    BatchArrived,
    BatchRequested,
    BatchSent,
    Counters,
    Exit,
    Report,
    RolloutArrived,
    Start,
    Stop,
    Stopped,
    TicketGranted,
    TicketRequested,
    TicketVoided,
)
from engine.roles.commands import Command, ForgetActor, Quit, Send, Wake
from engine.roles.events import Event, TimerFired
from engine.roles.rollout_ledger import RolloutLedger
from engine.rollout import Rollout
from engine.spec import StalenessSpec
from engine.trace.records import Ledger

DRAIN_S = 2.0
"""How long a stopping buffer waits for rollouts that actors report as sent."""


class BufferRole:
    """Decides for one rollout queue.

    Args:
        index: Its number.
        staleness: Mode and bound.
        rollouts_per_batch: Rollouts of one batch.
        version: Version of the initial weights.
        num_actors: Actors that send to it.
    """

    def __init__(
        self,
        index: int,
        staleness: StalenessSpec,
        rollouts_per_batch: int,
        version: int = 0,
        num_actors: int = 1,
    ) -> None:
        self.address = f"buffer-{index}"
        self._index = index
        self._admission = Admission(staleness, rollouts_per_batch, version, num_actors)
        self._queue: dict[int, Rollout] = {}
        self._held_versions: dict[str, int] = {}
        """Actors that wait for a ticket, with the version that they hold."""
        self._rollout_ledger = RolloutLedger(self.address)
        self._lost_epochs: dict[str, int] = {}
        self._request: BatchRequested | None = None
        self._delivered = 0
        self._last_delivery = BatchSent(batch=version - 1, attempt=0)
        self._last_delivered = 0
        """Env steps of the last batch."""
        self._consumed = 0
        self._stop: Stop | None = None
        self._is_finished = False

    def handle(self, event: Event, now_s: float) -> list[Command]:
        """Handles one event. Every change can free a batch or room for tickets.

        | event | commands |
        |---|---|
        | Start | none |
        | TicketRequested | Send(TicketGranted) as room permits |
        | RolloutArrived | Send(BatchArrived) if one is due, Send(TicketGranted) |
        | BatchRequested | Send(BatchArrived) if one is due; Send(BatchSent) if it was sent before |
        | ActorLost | ForgetActor; the rest as RolloutArrived |
        | TicketVoided | as RolloutArrived |
        | Stop | Wake; once drained, Send(Stopped) |
        | TimerFired | after Stop: Send(Stopped) |
        | Exit | Quit |

        A delivery, a drop and a loss are also reported: Send(Report).
        """
        if self._is_finished:
            return [Quit()] if isinstance(event, Exit) else []
        match event:
            case Start():
                return []
            case TicketRequested():
                return self._asked(event, now_s)
            case RolloutArrived():
                return self._arrived(event, now_s)
            case ActorLost():
                return self._lose(event, now_s)
            case TicketVoided(actor=actor):
                return self._void(actor, now_s)
            case BatchRequested():
                return self._requested(event, now_s)
            case Stop():
                self._stop = event
                self._consumed = event.consumed_env_steps
                return [*self._finish_if_drained(now_s), Wake(DRAIN_S)]
            case TimerFired():
                return self._finish(now_s) if self._stop else []
            case Exit():
                return [Quit()]
        raise RuntimeError(f"{self.address} cannot handle {type(event).__name__}")

    @property
    def _queued(self) -> int:
        return sum(rollout.info.num_env_steps for rollout in self._queue.values())

    def _asked(self, event: TicketRequested, now_s: float) -> list[Command]:
        if event.epoch <= self._lost_epochs.get(event.actor, -1):
            return []  # a ticket of a lost incarnation would never be freed
        self._held_versions[event.actor] = event.held_version
        has_lost = self._admission.lose_sent(event.actor, event.last_ticket)
        return [*(self._deliver(now_s) if has_lost else ()), *self._grant()]

    def _arrived(self, event: RolloutArrived, now_s: float) -> list[Command]:
        info = event.info
        entry = self._rollout_ledger.enter(info, now_s)
        commands = list(entry.notes)
        if not entry.is_new:
            return commands
        if self._admission.arrive(info.ticket, info.version_min):
            self._queue[info.ticket] = event.rollout
        else:
            commands.append(self._rollout_ledger.drop(info, now_s, "it has no open ticket"))
        if self._stop:
            return [*commands, *self._finish_if_drained(now_s)]
        self._held_versions[f"actor-{info.actor}"] = event.held_version
        return [*commands, *self._deliver(now_s), *self._grant()]

    def _lose(self, event: ActorLost, now_s: float) -> list[Command]:
        """Stops waiting for the rollouts that a dead actor held; its queued rollouts are kept."""
        commands = self._rollout_ledger.lose(event, now_s)
        if event.epoch > self._lost_epochs.get(event.actor, -1):
            self._lost_epochs[event.actor] = event.epoch
            number = int(event.actor.rpartition("-")[2])
            commands.append(ForgetActor(number, event.epoch))
            self._admission.lose(event.actor)
            self._held_versions.pop(event.actor, None)
        if self._stop:
            return [*commands, *self._finish_if_drained(now_s)]
        return [*commands, *self._deliver(now_s), *self._grant()]

    def _void(self, actor: str, now_s: float) -> list[Command]:
        """Stops waiting for the ticket and request of an actor that makes no progress."""
        self._admission.lose(actor)
        self._held_versions.pop(actor, None)
        return [] if self._stop else [*self._deliver(now_s), *self._grant()]

    def _requested(self, event: BatchRequested, now_s: float) -> list[Command]:
        self._consumed = max(self._consumed, event.consumed_env_steps)
        commands: list[Command] = []
        if event.batch < self._admission.next_batch:
            last = self._last_delivery
            if event.batch != last.batch or event.attempt < last.attempt:
                return []  # it has arrived by now
            if event.attempt == last.attempt:
                return [Send(event.learner, last)]
            commands.append(self._lose_batch(now_s))
        self._request = event
        return [*commands, *self._deliver(now_s), *self._grant()]

    def _lose_batch(self, now_s: float) -> Command:
        """The last batch was lost in transit, so another one replaces it."""
        env_steps, self._last_delivered = self._last_delivered, 0
        self._delivered -= env_steps
        self._admission.lose_batch()
        return self._rollout_ledger.lose_batch(self._last_delivery.batch, env_steps, now_s)

    def _deliver(self, now_s: float) -> list[Command]:
        """Sends a batch to the learner if it requested one and the bound allows it."""
        if self._request is None or self._stop:
            return []
        number = self._admission.next_batch
        decision = self._admission.take_batch()
        if decision is None:
            return []
        commands = [
            self._rollout_ledger.drop(self._queue.pop(ticket).info, now_s, "too old")
            for ticket in decision.dropped
        ]
        if decision.taken:
            rollouts = tuple(self._queue.pop(ticket) for ticket in decision.taken)
            self._last_delivered = sum(rollout.info.num_env_steps for rollout in rollouts)
            self._delivered += self._last_delivered
            commands.append(Send(self._request.learner, BatchArrived(number, rollouts)))
            self._last_delivery = BatchSent(batch=number, attempt=self._request.attempt)
            self._request = None
        return [*commands, self._report(now_s)]

    def _grant(self) -> list[Command]:
        """Gives tickets to those that wait, first come first served, while there is room."""
        commands: list[Command] = []
        while self._held_versions:
            actor, held_version = next(iter(self._held_versions.items()))
            ticket = self._admission.admit(actor, held_version)
            if ticket is None:
                break
            del self._held_versions[actor]
            answer = TicketGranted(ticket=ticket.number, min_version=ticket.min_version)
            commands.append(Send(actor, answer))
        return commands

    def _ledger(self, now_s: float) -> Ledger:
        """A ledger row, as far as rollouts have arrived here."""
        return Ledger(
            t_s=now_s,
            collected=self._rollout_ledger.collected,
            consumed=self._consumed,
            dropped=self._rollout_ledger.dropped,
            in_flight=self._queued + self._delivered - self._consumed,
            buffer=self._index,
        )

    def _report(self, now_s: float) -> Command:
        return Send(COORDINATOR, Report(address=self.address, records=[self._ledger(now_s)]))

    def _finish_if_drained(self, now_s: float) -> list[Command]:
        assert self._stop is not None
        return self._finish(now_s) if self._rollout_ledger.has_all(self._stop.sent_rollouts) else []

    def _finish(self, now_s: float) -> list[Command]:
        assert self._stop is not None
        self._is_finished = True
        notes = self._rollout_ledger.close(self._stop.sent_env_steps, now_s)
        counters = Counters(
            queued=self._queued,
            staged=self._delivered - self._consumed,
            dropped=self._rollout_ledger.dropped,
            lost_collected=self._rollout_ledger.lost_collected,
        )
        return [*notes, Send(COORDINATOR, Stopped(address=self.address, counters=counters))]
