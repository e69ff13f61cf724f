"""The buffer as a rollout queue: admits, stores, hands over, and keeps the ledger.

Only the buffer sees every env step between actor and learner, so it keeps the ledger of the run.
"""

from __future__ import annotations

from collections.abc import Sequence

from engine.admission.bounded import Admission
from engine.admission.fixed_order import FixedOrder
from engine.admission.tickets import Gatekeeper
from engine.messages import (
    COORDINATOR,
    BatchArrived,
    BatchRequested,
    BatchSent,
    Counters,
    Report,
    RolloutArrived,
    Stop,
    TicketGranted,
)
from engine.roles.commands import Command, Send
from engine.roles.events import Event
from engine.roles.ticket_buffer import TicketBuffer
from engine.rollout import Rollout
from engine.spec import StalenessSpec
from engine.trace.records import IRREPRODUCIBLE, Ledger


class BufferRole(TicketBuffer):
    """Decides for one rollout queue.

    Args:
        index: Its number.
        staleness: Mode and bound.
        rollouts_per_batch: Rollouts of one batch.
        version: Version of the initial weights.
        num_actors: Actors that send to it.
        order: Addresses of these actors, if they get tickets in turn instead of first come, first
            served: where the lag is fixed. And actors that share environments wait for each other
            at every step, so all their buffers must let the same ones begin first.
    """

    def __init__(
        self,
        index: int,
        staleness: StalenessSpec,
        rollouts_per_batch: int,
        version: int = 0,
        num_actors: int = 1,
        order: Sequence[str] = (),
    ) -> None:
        self._admission: Gatekeeper
        if staleness.is_fixed:
            self._admission = FixedOrder(staleness, rollouts_per_batch, version, order)
        else:
            self._admission = Admission(staleness, rollouts_per_batch, version, num_actors, order)
        self._is_adaptive = staleness.is_adaptive
        self._is_change_told = False
        super().__init__(index, self._admission)
        self._queue: dict[int, Rollout] = {}
        self._delivered = 0
        self._last_delivery = BatchSent(batch=version - 1, attempt=0)
        self._last_delivered = 0
        """Env steps of the last batch."""
        self._consumed = 0

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
        if isinstance(event, BatchRequested) and not self._is_finished:
            return self._requested(event, now_s)
        if isinstance(event, Stop):
            self._consumed = event.consumed_env_steps
        return super().handle(event, now_s)

    @property
    def _queued(self) -> int:
        return sum(rollout.info.num_env_steps for rollout in self._queue.values())

    def _take_in(self, event: RolloutArrived, now_s: float) -> list[Command]:
        info = event.info
        if not self._admission.arrive(info.ticket, info.version_min):
            return self._drop_without_ticket(info, now_s)
        self._queue[info.ticket] = event.rollout
        return []

    def _requested(self, event: BatchRequested, now_s: float) -> list[Command]:
        self._consumed = max(self._consumed, event.consumed_env_steps)
        if event.max_lag is not None:
            assert isinstance(self._admission, Admission)
            self._admission.max_lag = event.max_lag
        commands: list[Command] = []
        if event.batch < self._admission.next_batch:
            last = self._last_delivery
            if event.batch != last.batch or event.attempt < last.attempt:
                return []  # it has arrived by now
            if event.attempt == last.attempt:
                return [Send(event.learner, last)]
            commands.append(self._lose_batch(now_s))
        self._request = event
        return [*commands, *self._serve_all(now_s)]

    def _lose_batch(self, now_s: float) -> Command:
        """The last batch was lost in transit, so another one replaces it."""
        env_steps, self._last_delivered = self._last_delivered, 0
        self._delivered -= env_steps
        self._admission.lose_batch()
        return self._rollout_ledger.lose_batch(self._last_delivery.batch, env_steps, now_s)

    def _do_without(self, actor: str) -> None:
        self._admission.void(actor)

    def _serve_all(self, now_s: float) -> list[Command]:
        return [*self._tell_change(now_s), *super()._serve_all(now_s)]

    def _tell_change(self, now_s: float) -> list[Command]:
        """Says once from which batch on the run is not what its seed gives elsewhere."""
        batch = self._admission.changed_from
        if batch is None or self._is_change_told:
            return []
        self._is_change_told = True
        detail = f"from batch {batch} on, since rollouts were lost and others take their place"
        return [self._rollout_ledger.note(now_s, IRREPRODUCIBLE, self.address, detail)]

    def _serve(self, now_s: float) -> list[Command]:
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
        commands: list[Command] = []
        while (actor := self._admission.next_to_begin(self._waiting)) is not None:
            ticket = self._admission.admit(actor, self._waiting[actor])
            if ticket is None:
                break
            del self._waiting[actor]
            answer = TicketGranted(
                ticket=ticket.number,
                min_version=ticket.min_version,
                next_version=ticket.next_version,
                max_lag=ticket.max_lag if self._is_adaptive else None,
            )
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

    def _last_words(self, now_s: float) -> tuple[list[Command], Counters]:
        return [], Counters(
            queued=self._queued,
            staged=self._delivered - self._consumed,
            dropped=self._rollout_ledger.dropped,
            lost_collected=self._rollout_ledger.lost_collected,
        )
