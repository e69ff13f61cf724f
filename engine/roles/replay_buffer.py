"""The buffer as a replay store: admits, stores, draws, and keeps the ledger.

The rate limiter decides whether actors (for tickets) or the learner (for its batch) wait. An env
step is consumed when it is inserted; how often it is drawn afterwards is counted separately.
"""

from __future__ import annotations

import math

from engine.messages import (
    COORDINATOR,
    ActorLost,
    BatchRequested,
    BatchSent,
    Counters,
    Exit,
    PrioritiesArrived,
    Report,
    RolloutArrived,
    SamplesArrived,
    Start,
    StepLimitReached,
    Stop,
    Stopped,
    TicketGranted,
    TicketRequested,
    TicketVoided,
)
from engine.replay.limiter import RateLimiter
from engine.roles.buffer import DRAIN_S
from engine.roles.commands import (
    Command,
    DrawSamples,
    ForgetActor,
    InsertRollout,
    Quit,
    Send,
    SetPriorities,
    Wake,
)
from engine.roles.events import Event, SamplesDrawn, TimerFired
from engine.roles.rollout_ledger import RolloutLedger
from engine.rollout import SamplesInfo
from engine.trace.records import Ledger, Replay


class ReplayBufferRole:
    """Decides for one replay store.

    Args:
        index: Its number.
        limiter: Decides whether actors or the learner wait.
        capacity: Env steps that the store holds.
        step_limit: `stop.env_steps`, less what was consumed before the run was resumed.
        version: Of the weights that the run begins with.
        keeps_in_step: Whether actors wait for the weights of all batches drawn so far.
    """

    def __init__(
        self,
        index: int,
        limiter: RateLimiter,
        capacity: int,
        step_limit: int | None,
        version: int = 0,
        *,
        keeps_in_step: bool = False,
    ) -> None:
        self._keeps_in_step = keeps_in_step
        self.address = f"buffer-{index}"
        self._index = index
        self._limiter = limiter
        self._capacity = capacity
        self._step_limit = step_limit
        self._waiting: dict[str, None] = {}
        """Actors that wait for a ticket, in order of their requests."""
        self._rollout_ledger = RolloutLedger(self.address)
        self._lost_epochs: dict[str, int] = {}
        self._request: BatchRequested | None = None
        self._drawing: BatchRequested | None = None
        """The last request that was, or is being, answered."""
        self._last_delivery = BatchSent(batch=version - 1, attempt=0)
        self._next_batch = version
        self._reported_steps = 0
        self._reported_samples = 0
        self._has_reached_limit = False
        self._stop: Stop | None = None
        self._is_finished = False

    def handle(self, event: Event, now_s: float) -> list[Command]:
        """Handles one event. Every change can allow a draw or more tickets.

        | event | commands |
        |---|---|
        | Start | none |
        | TicketRequested | DrawSamples, Send(TicketGranted) as the limiter permits |
        | RolloutArrived | InsertRollout; the rest as TicketRequested |
        | BatchRequested | DrawSamples if permitted; Send(BatchSent) if it was sent before |
        | SamplesDrawn | Send(SamplesArrived, Report), Send(TicketGranted) |
        | PrioritiesArrived | SetPriorities |
        | ActorLost | ForgetActor; the rest as TicketRequested |
        | TicketVoided | as TicketRequested |
        | Stop | Wake; once drained, Send(Report, Stopped) |
        | TimerFired | after Stop: Send(Report, Stopped) |
        | Exit | Quit |

        The first time that `step_limit` is reached: Send(StepLimitReached).
        """
        if self._is_finished:
            return [Quit()] if isinstance(event, Exit) else []
        match event:
            case Start():
                return []
            case TicketRequested():
                return self._asked(event)
            case RolloutArrived():
                return self._arrived(event, now_s)
            case BatchRequested():
                return self._requested(event)
            case SamplesDrawn(samples=samples):
                return self._drawn(SamplesArrived(self._next_batch - 1, samples), now_s)
            case ActorLost():
                return self._lose(event, now_s)
            case TicketVoided(actor=actor):
                return self._void(actor)
            case PrioritiesArrived(priorities=priorities):
                return [SetPriorities(priorities)]
            case Stop():
                self._stop = event
                return [*self._finish_if_drained(now_s), Wake(DRAIN_S)]
            case TimerFired():
                return self._finish(now_s) if self._stop else []
            case Exit():
                return [Quit()]
        raise RuntimeError(f"{self.address} cannot handle {type(event).__name__}")

    def _asked(self, event: TicketRequested) -> list[Command]:
        if event.epoch <= self._lost_epochs.get(event.actor, -1):
            return []  # a ticket of a lost incarnation would never be freed
        self._waiting[event.actor] = None
        self._limiter.lose_sent(event.actor, event.last_ticket)
        return [*self._draw(), *self._grant()]

    def _void(self, actor: str) -> list[Command]:
        """Stops waiting for the ticket and request of an actor that makes no progress."""
        self._limiter.lose(actor)
        self._waiting.pop(actor, None)
        return [] if self._stop else [*self._draw(), *self._grant()]

    def _arrived(self, event: RolloutArrived, now_s: float) -> list[Command]:
        info = event.info
        entry = self._rollout_ledger.enter(info, now_s)
        commands = list(entry.notes)
        if not entry.is_new:
            return commands
        if self._limiter.arrive(info.ticket, info.num_env_steps):
            commands.append(InsertRollout(event.rollout))
        else:
            commands.append(self._rollout_ledger.drop(info, now_s, "it has no open ticket"))
        if self._stop:
            return [*commands, *self._finish_if_drained(now_s)]
        self._waiting[f"actor-{info.actor}"] = None
        commands += [*self._check_step_limit(), *self._draw(), *self._grant()]
        if self._limiter.sampled == 0:  # later every draw writes its row
            commands.append(self._report(now_s))
        return commands

    def _lose(self, event: ActorLost, now_s: float) -> list[Command]:
        """Stops waiting for the rollouts that a dead actor held; inserted ones are kept."""
        commands = self._rollout_ledger.lose(event, now_s)
        if event.epoch > self._lost_epochs.get(event.actor, -1):
            self._lost_epochs[event.actor] = event.epoch
            number = int(event.actor.rpartition("-")[2])
            commands.append(ForgetActor(number, event.epoch))
            self._limiter.lose(event.actor)
            self._waiting.pop(event.actor, None)
        if self._stop:
            return [*commands, *self._finish_if_drained(now_s)]
        return [*commands, *self._draw(), *self._grant()]

    def _check_step_limit(self) -> list[Command]:
        limit = self._step_limit
        if self._has_reached_limit or limit is None or self._limiter.inserted < limit:
            return []
        self._has_reached_limit = True
        return [Send(COORDINATOR, StepLimitReached())]

    def _requested(self, event: BatchRequested) -> list[Command]:
        last = self._last_delivery
        if event.batch == last.batch and event.attempt == last.attempt:
            return [Send(event.learner, last)]
        if event.batch == last.batch and event.attempt > last.attempt:
            self._limiter.lose_batch()
            self._next_batch -= 1
            self._last_delivery = BatchSent(batch=event.batch - 1, attempt=0)
        if event.batch == self._next_batch:
            self._request = event
        return self._draw()

    def _draw(self) -> list[Command]:
        """Draws a batch if the learner requested one and the replay ratio allows it."""
        if self._request is None or self._stop or not self._limiter.take_batch():
            return []
        self._drawing, self._request = self._request, None
        self._next_batch += 1
        return [DrawSamples(self._limiter.inserted)]

    def _drawn(self, message: SamplesArrived, now_s: float) -> list[Command]:
        assert self._drawing is not None
        learner, attempt = self._drawing.learner, self._drawing.attempt
        self._last_delivery = BatchSent(batch=message.batch, attempt=attempt)
        return [
            Send(learner, message),
            self._report(now_s, message.samples.info),
            *self._grant(),
        ]

    def _grant(self) -> list[Command]:
        """Gives tickets to those that wait, first come first served, while the limiter allows."""
        commands: list[Command] = []
        oldest = self._next_batch if self._keeps_in_step else 0
        for actor in list(self._waiting):
            ticket = self._limiter.admit(actor)
            if ticket is None:
                break
            del self._waiting[actor]
            commands.append(Send(actor, TicketGranted(ticket=ticket, min_version=oldest)))
        return commands

    def _report(self, now_s: float, drawn: SamplesInfo | None = None) -> Command:
        """A replay row since the last one, and a ledger row as far as rollouts have arrived."""
        limiter = self._limiter
        row = Replay(
            t_s=now_s,
            buffer=self._index,
            env_steps=limiter.inserted - self._reported_steps,
            env_steps_total=limiter.inserted,
            samples=limiter.sampled - self._reported_samples,
            samples_total=limiter.sampled,
            size_env_steps=min(limiter.inserted, self._capacity),
            replay_ratio=limiter.sampled / max(limiter.inserted, 1),
            sample_age_mean_s=drawn.age_mean_s if drawn else math.nan,
            sample_age_max_s=drawn.age_max_s if drawn else math.nan,
        )
        self._reported_steps, self._reported_samples = limiter.inserted, limiter.sampled
        ledger = Ledger(
            t_s=now_s,
            collected=self._rollout_ledger.collected,
            consumed=limiter.inserted,
            dropped=self._rollout_ledger.dropped,
            in_flight=0,
            buffer=self._index,
        )
        return Send(COORDINATOR, Report(address=self.address, records=[row, ledger]))

    def _finish_if_drained(self, now_s: float) -> list[Command]:
        assert self._stop is not None
        has_all = self._rollout_ledger.has_all(self._stop.sent_rollouts)
        return self._finish(now_s) if has_all else []

    def _finish(self, now_s: float) -> list[Command]:
        assert self._stop is not None
        self._is_finished = True
        notes = self._rollout_ledger.close(self._stop.sent_env_steps, now_s)
        counters = Counters(
            consumed=self._limiter.inserted,
            dropped=self._rollout_ledger.dropped,
            lost_collected=self._rollout_ledger.lost_collected,
        )
        return [
            *notes,
            self._report(now_s),
            Send(COORDINATOR, Stopped(address=self.address, counters=counters)),
        ]
