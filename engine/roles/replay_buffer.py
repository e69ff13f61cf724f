"""The buffer as a replay store: admits, stores, draws, and keeps the ledger.

The rate limiter decides whether actors (for tickets) or the learner (for its batch) wait. An env
step is consumed when it is inserted; how often it is drawn afterwards is counted separately.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import msgspec

from engine.messages import (
    COORDINATOR,
    BatchRequested,
    BatchSent,
    Counters,
    PrioritiesArrived,
    ReplayDue,
    Report,
    RolloutArrived,
    SamplesArrived,
    StepLimitReached,
    Stop,
    Stopped,
    TicketGranted,
)
from engine.progress import LimiterState
from engine.replay.limiter import RateLimiter
from engine.roles.commands import (
    Command,
    DrawSamples,
    InsertRollout,
    PollReplay,
    SaveReplay,
    Send,
    SetPriorities,
    Wake,
)
from engine.roles.events import Event, ReplaySaved, ReplayUnsaved, SamplesDrawn, TimerFired
from engine.roles.ticket_buffer import DRAIN_S, TicketBuffer
from engine.rollout import SamplesInfo
from engine.trace.records import Event as TraceEvent
from engine.trace.records import Ledger, Replay

POLL_S = 0.25
"""How often a buffer that is saving its store asks whether that has ended."""


@dataclass(frozen=True)
class SavedCounts:
    """Counts of the saved store that a buffer goes on with.

    Attributes:
        limiter: What had been inserted and drawn.
        has_batch: The last batch drawn was not trained on; it comes first.
    """

    limiter: LimiterState
    has_batch: bool


class ReplayBufferRole(TicketBuffer):
    """Decides for one replay store.

    Args:
        index: Its number.
        limiter: Decides whether actors or the learner wait.
        capacity: Env steps that the store holds.
        step_limit: `stop.env_steps`, less what was consumed before the run was resumed.
        version: Of the weights that the run begins with.
        keeps_in_step: Whether actors wait for the weights of all batches drawn so far.
        consumed_before: Env steps consumed before the run was resumed; None if other groups consume
            too.
        share_before: This store's part of the env steps consumed before that.
        saved: Of the store that it goes on with, if any.
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
        consumed_before: int | None = None,
        share_before: int = 0,
        saved: SavedCounts | None = None,
    ) -> None:
        super().__init__(index, limiter)
        if saved is not None:
            limiter.restore(saved.limiter)
            if saved.has_batch:
                limiter.lose_batch()
        self._before = limiter.state
        """Counts that are not this run's own."""
        self._consumed_before = consumed_before
        self._share_before = share_before
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
        self._saving: int | None = None
        """Version of the checkpoint for which the store is being saved."""
        self._saves_last = False
        """Whether that is for the last checkpoint."""
        self._due: int | None = None
        """Of the last checkpoint, once it is known: saved when all rollouts have arrived."""
        self._drained_at_s = math.inf
        self._is_drained = False

    @property
    def _inserted(self) -> int:
        """Env steps, in this run."""
        return self._limiter.inserted - self._before.inserted

    @property
    def _sampled(self) -> int:
        """Samples, in this run."""
        return self._limiter.sampled - self._before.sampled

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
        | ReplayDue | SaveReplay, Wake; if it is final, once drained |
        | ReplaySaved | Send(Report); after the final one, Send(Report, Stopped) |
        | ActorLost | ForgetActor; the rest as TicketRequested |
        | TicketVoided | as TicketRequested |
        | Stop | Wake; once drained, Send(Report, Stopped) |
        | TimerFired | PollReplay while the store is saved; after Stop: Send(Report, Stopped) |
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
                case ReplayDue():
                    return self._replay_due(event, now_s)
                case ReplaySaved():
                    return self._saved(event, now_s)
                case ReplayUnsaved():
                    return self._still_saving()
                case TimerFired():
                    return self._timer_fired(now_s)
                case Stop():
                    self._drained_at_s = now_s + DRAIN_S
                    commands = super().handle(event, now_s)
                    return commands if self._saving is None else [*commands, Wake(POLL_S)]
        return super().handle(event, now_s)

    def _replay_due(self, event: ReplayDue, now_s: float) -> list[Command]:
        if event.is_final:
            self._due = event.version
            return []
        if self._saving is not None:
            return [self._note("replay-skipped", self._words_of_skipped(event.version), now_s)]
        return self._save(event.version)

    def _words_of_skipped(self, version: int) -> str:
        return f"version {version}: that of version {self._saving} is still being written"

    def _save(self, version: int) -> list[Command]:
        """The learner asks for it after the last batch that it has trained; the one after that can
        have been drawn already."""
        self._saving, before = version, self._consumed_before
        self._saves_last = self._is_drained
        save = SaveReplay(
            version=version,
            limiter=self._limiter.state,
            env_steps_consumed=None if before is None else before + self._inserted,
            has_batch=self._next_batch > version,
        )
        return [save, Wake(POLL_S)]

    def _still_saving(self) -> list[Command]:
        """The coordinator hears of it, and waits."""
        commands: list[Command] = [Wake(POLL_S)]
        if self._stop:
            commands.append(Send(COORDINATOR, Report(address=self.address, records=[])))
        return commands

    def _timer_fired(self, now_s: float) -> list[Command]:
        """While the store is saved, the timer is for that; else it is for a drain that lasts."""
        commands: list[Command] = [] if self._saving is None else [PollReplay()]
        if self._stop and (self._saving is None or now_s >= self._drained_at_s):
            commands += self._finish(now_s)
        return commands

    def _wait(self, now_s: float) -> list[Command]:
        """For rollouts under way, once the timer is not needed to save the store."""
        return [Wake(self._drained_at_s - now_s)] if self._stop and self._saving is None else []

    def _saved(self, event: ReplaySaved, now_s: float) -> list[Command]:
        self._saving = None
        is_final = self._saves_last  # not told by the version: one before can have the same
        if event.error:
            told = self._note("checkpoint-failed", f"its replay store: {event.error}", now_s)
        else:
            words = f"version {event.version}: {event.num_bytes} bytes in {event.seconds:.1f} s"
            told = self._note("replay-saved", words, now_s)
        if not self._is_drained:
            return [told, *self._wait(now_s)]
        if not is_final and self._due is not None:
            return [told, *self._save(self._due)]
        return [told, *self._end(now_s, event.error if is_final else "")]

    def _finish(self, now_s: float) -> list[Command]:
        """Ends, after the store was saved for the last checkpoint."""
        if self._is_drained:
            return []
        self._is_drained = True
        if self._saving is not None:
            return [Wake(POLL_S)]
        return self._end(now_s) if self._due is None else self._save(self._due)

    def _end(self, now_s: float, error: str = "") -> list[Command]:
        *commands, last = super()._finish(now_s)
        assert isinstance(last, Send)
        assert isinstance(last.message, Stopped)
        if error:
            words = f"its replay store was not saved: {error}"
            last = Send(COORDINATOR, msgspec.structs.replace(last.message, error=words))
        return [*commands, last]

    def _note(self, kind: str, detail: str, now_s: float) -> Command:
        row = TraceEvent(t_s=now_s, kind=kind, host="", role=self.address, detail=detail)
        return Send(COORDINATOR, Report(address=self.address, records=[row]))

    def _take_in(self, event: RolloutArrived, now_s: float) -> list[Command]:
        if self._limiter.arrive(event.info.ticket, event.info.num_env_steps):
            return [InsertRollout(event.rollout)]
        return self._drop_without_ticket(event.info, now_s)

    def _serve_arrival(self, now_s: float) -> list[Command]:
        commands = [*self._check_step_limit(), *self._serve_all(now_s)]
        if self._sampled == 0:  # later every draw writes its row
            commands.append(self._report(now_s))
        return commands

    def _check_step_limit(self) -> list[Command]:
        limit = self._step_limit
        if self._has_reached_limit or limit is None or self._inserted < limit:
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
        return [DrawSamples(self._share_before + self._inserted)]

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
        inserted, sampled = self._inserted, self._sampled
        row = Replay(
            t_s=now_s,
            buffer=self._index,
            env_steps=inserted - self._reported_steps,
            env_steps_total=inserted,
            samples=sampled - self._reported_samples,
            samples_total=sampled,
            size_env_steps=min(self._limiter.inserted, self._capacity),
            replay_ratio=sampled / max(inserted, 1),
            sample_age_mean_s=drawn.age_mean_s if drawn else math.nan,
            sample_age_max_s=drawn.age_max_s if drawn else math.nan,
        )
        self._reported_steps, self._reported_samples = inserted, sampled
        ledger = Ledger(
            t_s=now_s,
            collected=self._rollout_ledger.collected,
            consumed=inserted,
            dropped=self._rollout_ledger.dropped,
            in_flight=0,
            buffer=self._index,
        )
        return Send(COORDINATOR, Report(address=self.address, records=[row, ledger]))

    def _last_words(self, now_s: float) -> tuple[list[Command], Counters]:
        counters = Counters(
            consumed=self._inserted,
            dropped=self._rollout_ledger.dropped,
            lost_collected=self._rollout_ledger.lost_collected,
        )
        return [self._report(now_s)], counters
