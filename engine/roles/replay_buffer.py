"""The buffer as a replay store: admits, stores, draws, and keeps the ledger.

The rate limiter decides whether actors (for tickets) or the learner (for its batch) wait. An env
step is consumed when it is inserted; how often it is drawn afterwards is counted separately.
"""

from __future__ import annotations

import math

from engine.messages import (
    COORDINATOR,
    BatchRequested,
    BatchSent,
    Counters,
    PrioritiesArrived,
    Report,
    RolloutArrived,
    SamplesArrived,
    StepLimitReached,
    TicketGranted,
)
from engine.replay.limiter import RateLimiter
from engine.roles.commands import (
    Command,
    DrawSamples,
    InsertRollout,
    Send,
    SetPriorities,
)
from engine.roles.events import Event, SamplesDrawn
from engine.roles.ticket_buffer import TicketBuffer
from engine.rollout import SamplesInfo
from engine.trace.records import Ledger, Replay


class ReplayBufferRole(TicketBuffer):
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
        super().__init__(index, limiter)
        self._keeps_in_step = keeps_in_step
        self._limiter = limiter
        self._capacity = capacity
        self._step_limit = step_limit
        self._drawing: BatchRequested | None = None
        """The last request that was, or is being, answered."""
        self._last_delivery = BatchSent(batch=version - 1, attempt=0)
        self._next_batch = version
        self._reported_steps = 0
        self._reported_samples = 0
        self._has_reached_limit = False

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
        if not self._is_finished:
            match event:
                case BatchRequested():
                    return self._requested(event, now_s)
                case SamplesDrawn(samples=samples):
                    return self._drawn(SamplesArrived(self._next_batch - 1, samples), now_s)
                case PrioritiesArrived(priorities=priorities):
                    return [SetPriorities(priorities)]
        return super().handle(event, now_s)

    def _take_in(self, event: RolloutArrived, now_s: float) -> list[Command]:
        if self._limiter.arrive(event.info.ticket, event.info.num_env_steps):
            return [InsertRollout(event.rollout)]
        return self._drop_without_ticket(event.info, now_s)

    def _serve_arrival(self, now_s: float) -> list[Command]:
        commands = [*self._check_step_limit(), *self._serve_all(now_s)]
        if self._limiter.sampled == 0:  # later every draw writes its row
            commands.append(self._report(now_s))
        return commands

    def _check_step_limit(self) -> list[Command]:
        limit = self._step_limit
        if self._has_reached_limit or limit is None or self._limiter.inserted < limit:
            return []
        self._has_reached_limit = True
        return [Send(COORDINATOR, StepLimitReached())]

    def _requested(self, event: BatchRequested, now_s: float) -> list[Command]:
        last = self._last_delivery
        if event.batch == last.batch and event.attempt == last.attempt:
            return [Send(event.learner, last)]
        if event.batch == last.batch and event.attempt > last.attempt:
            self._limiter.lose_batch()
            self._next_batch -= 1
            self._last_delivery = BatchSent(batch=event.batch - 1, attempt=0)
        if event.batch == self._next_batch:
            self._request = event
        return self._serve(now_s)

    def _serve(self, now_s: float) -> list[Command]:
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

    def _last_words(self, now_s: float) -> tuple[list[Command], Counters]:
        counters = Counters(
            consumed=self._limiter.inserted,
            dropped=self._rollout_ledger.dropped,
            lost_collected=self._rollout_ledger.lost_collected,
        )
        return [self._report(now_s)], counters
