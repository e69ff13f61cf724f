"""The learner: trains on the next batch as soon as it arrives and sends the weights to all actors.

While one batch is trained, the next one can be staged, so the buffer's answer is never on the
critical path. Each update raises the weights version by one.

If there are several learners, either a reducer merges their models (a learner offers its model
after an update if the last offer was answered, continues training, and blends the answer in), or
they make every update together until one of them withdraws.
"""

from __future__ import annotations

from msgspec.structs import replace

from engine.graph.cut import Cut, single_cut
from engine.messages import (
    COORDINATOR,
    BatchArrived,
    BatchRequested,
    BatchSent,
    CheckpointDue,
    Counters,
    Exit,
    ModelMerged,
    ModelOffered,
    PrioritiesArrived,
    ReplayDue,
    Report,
    SamplesArrived,
    Start,
    StepLimitReached,
    Stop,
    Stopped,
    WeightsRequested,
)
from engine.progress import Resumed, Standing, steps_left
from engine.roles.batches import (
    Batch,
    ProgressCount,
    UpdateCount,
    num_env_steps,
    stage_ahead,
    staleness_row,
    update_with,
)
from engine.roles.commands import (
    BlendModel,
    Command,
    ExportModel,
    ExportWeights,
    Log,
    Quit,
    SaveCheckpoint,
    Send,
    Wake,
    Withdraw,
)
from engine.roles.events import (
    CheckpointWritten,
    Event,
    ModelExported,
    Noted,
    ReadyToTrain,
    TimerFired,
    Updated,
    UpdateDeclined,
    WeightsExported,
    Withdrawn,
)
from engine.roles.lag_windows import LagWindows
from engine.roles.retries import ASK_AGAIN_S, BatchRequests, Offers
from engine.roles.subscribers import Subscribers
from engine.rollout import Weights
from engine.spec import Experiment
from engine.trace.records import LAG_BOUND, Consumption, Record, WeightsPublished
from engine.trace.records import Event as TraceEvent

REDUCER = "reducer-0"


class LearnerRole:
    """Decides for one learner.

    Args:
        index: Its number.
        experiment: Stop rules.
        buffer: Address that it takes batches from.
        cut: How many learners there are, and how they learn from each other.
        resumed: The checkpoint that the run resumes, if any. A learner's own counts start at zero.
        keeps_replay: Whether the buffer saves its store with each checkpoint.
        stages_ahead: Whether its executor moves the next batch to a device beside an update.
    """

    def __init__(
        self,
        index: int,
        experiment: Experiment,
        buffer: str,
        cut: Cut | None = None,
        resumed: Resumed | None = None,
        *,
        keeps_replay: bool = False,
        stages_ahead: bool = False,
    ) -> None:
        cut = cut or single_cut(experiment)
        self.address = f"learner-{index}"
        self._index = index
        self._buffer = buffer
        self._keeps_replay = keeps_replay
        self._stages_ahead = stages_ahead
        knows_all = cut.groups == 1 or cut.is_joint
        self._step_limit = steps_left(experiment.stop.env_steps, resumed) if knows_all else None
        """None if a reducer merges learners: only the coordinator knows what all have consumed."""
        self._has_reducer = cut.has_reducer
        self._progress = ProgressCount(experiment.stop.env_steps, cut, resumed)
        self._version = resumed.version if resumed else 0
        self._offers = Offers(experiment.reduce.every_updates, self._version)
        self._is_joint = self._takes_part = cut.is_joint
        self._due: Standing | None = None
        """Set while a due checkpoint waits for the end of an update."""
        self._standing = Standing()
        """The run's progress, as the coordinator last reported it."""
        self._updates = UpdateCount(self._version)
        staleness = experiment.staleness
        self._subscribers = Subscribers(staleness.lag + 1 if staleness.is_fixed else 1)
        self._is_prepared = not staleness.is_fixed
        """Whether it may train: at a fixed lag, all optimiser steps are by the same means."""
        self._lag = LagWindows(staleness) if staleness.is_adaptive else None
        self._requests = BatchRequests(self.address, first=self._version)
        self._staged: Batch | None = None
        self._training: Batch | None = None
        self._idle_since_s = 0.0
        self._started_update_s = 0.0
        self._wait_s = 0.0
        self._consumed = 0
        self._trained = 0
        self._consumed_by_all = self._trained_by_all = 0
        """Includes the shares of learners that make every update together with this one."""
        self._is_stopping = False

    def handle(self, event: Event, now_s: float) -> list[Command]:
        """Handles one event: a message, or the result of a command (see `_performed`).

        | event | commands |
        |---|---|
        | Start | ExportWeights, Send(BatchRequested), Wake |
        | WeightsRequested | Send(WeightsArrived) if there are newer weights |
        | BatchArrived, SamplesArrived | if idle: Send(BatchRequested), Wake, Update…; else, if it |
        | | is to be staged ahead, StageAhead |
        | BatchSent, TimerFired | Send(BatchRequested) again if it is missing, Wake |
        | ModelMerged | BlendModel if it answers the last offer |
        | CheckpointDue | between updates: SaveCheckpoint, Send(ReplayDue) if the store is kept |
        | Stop | between updates: Withdraw if learners update together, else SaveCheckpoint |
        | Exit | Quit |
        """
        match event:
            case Start():
                self._idle_since_s = now_s
                return [ExportWeights(self._version), *self._request_next()]
            case WeightsRequested():
                return self._subscribers.ask(event)
            case BatchArrived() | SamplesArrived():
                return self._arrived(event, now_s)
            case BatchSent():
                return self._ask(self._requests.missed(event, self._consumed))
            case TimerFired():
                return self._ask(self._requests.again(self._consumed))
            case ModelMerged(weights=weights):
                is_current = self._offers.take(weights.version, now_s)
                return [BlendModel(weights)] if is_current else []
            case CheckpointDue(standing=standing):
                self._due = standing
                return self._checkpoint_if_due(now_s) if self._training is None else []
            case Stop(standing=standing):
                self._is_stopping, self._standing = True, standing
                return self._withdraw(now_s) if self._training is None else []
            case Exit():
                return [Quit()]
        return self._performed(event, now_s)

    def _performed(self, event: Event, now_s: float) -> list[Command]:
        """Handles the result of a command.

        | event | commands |
        |---|---|
        | WeightsExported | Send(WeightsArrived) to subscribers, Send(Report) |
        | Updated | Send(WeightsArrived) unless they are pending, |
        | | Send(PrioritiesArrived, Report), and what is due of: |
        | | Send(StepLimitReached), ExportModel, SaveCheckpoint, the next update, and with an |
        | | adaptive bound on lag, if it is decided about, Log and Send(Report) |
        | UpdateDeclined | none; after Stop: SaveCheckpoint |
        | ModelExported | Send(ModelOffered) |
        | CheckpointWritten | Send(Report); after the final one, Send(Stopped) |
        | Noted | Send(Report) |
        | ReadyToTrain | the first update, if its batch is there |
        | Withdrawn | SaveCheckpoint |
        """
        match event:
            case WeightsExported(weights=weights):
                return [
                    *self._subscribers.publish(weights),
                    self._report(self._published_row(now_s)),
                ]
            case Updated():
                return self._updated(event, now_s)
            case UpdateDeclined():
                self._training, self._takes_part = None, False
                return self._finish(now_s) if self._is_stopping else []
            case ModelExported(weights=weights):
                offer = ModelOffered(self._index, weights, self._offers.answered)
                return [Send(REDUCER, offer)]
            case CheckpointWritten():
                return self._written(event, now_s)
            case Noted(kind=kind, detail=detail):
                return [self._note(kind, detail, now_s)]
            case ReadyToTrain():
                self._is_prepared = True
                return self._train_if_idle(now_s)
            case Withdrawn():
                self._takes_part = False
                return self._finish(now_s)
        raise RuntimeError(f"{self.address} cannot handle {type(event).__name__}")

    def _request_next(self) -> list[Command]:
        """Requests the next batch, unless the step limit is reached without it."""
        planned = self._consumed_by_all
        if self._training is not None:
            planned += num_env_steps(self._training)
        if self._is_stopping or self._is_enough(planned):
            return []
        return self._ask(self._requests.new(self._consumed))

    def _is_enough(self, env_steps: int) -> bool:
        return self._step_limit is not None and env_steps >= self._step_limit

    def _ask(self, request: BatchRequested | None) -> list[Command]:
        if request is None or self._is_stopping:
            return []
        if self._lag is not None:
            request = replace(request, max_lag=self._lag.max_lag)
        return [Send(self._buffer, request), Wake(ASK_AGAIN_S)]

    def _arrived(self, batch: Batch, now_s: float) -> list[Command]:
        if not self._requests.arrived(batch.batch):
            return []
        self._staged = batch
        if self._stages_ahead and self._training is not None:
            return [stage_ahead(batch)]
        return self._train_if_idle(now_s)

    def _published_row(self, now_s: float) -> WeightsPublished:
        weights = self._subscribers.newest
        assert weights is not None
        return WeightsPublished(
            t_s=now_s,
            learner=self._index,
            version=weights.version,
            num_bytes=weights.num_bytes,
            num_subscribers=len(self._subscribers),
        )

    def _report(self, *records: Record) -> Command:
        return Send(COORDINATOR, Report(address=self.address, records=list(records)))

    def _note(self, kind: str, detail: str, now_s: float) -> Command:
        row = TraceEvent(t_s=now_s, kind=kind, host="", role=self.address, detail=detail)
        return self._report(row)

    def _train_if_idle(self, now_s: float) -> list[Command]:
        if self._staged is None or self._training is not None or self._is_stopping:
            return []
        if not self._is_prepared:
            return []
        if self._is_joint and not self._takes_part:
            return []
        if self._is_enough(self._consumed_by_all):
            return []  # the others count the same, so none of them starts another update either
        self._training, self._staged = self._staged, None
        self._wait_s = now_s - self._idle_since_s
        self._started_update_s = now_s
        progress = self._progress.before(self._training, self._consumed_by_all)
        return [*self._request_next(), update_with(self._training, progress)]

    def _updated(self, event: Updated, now_s: float) -> list[Command]:
        assert self._training is not None
        batch, self._training = self._training, None
        env_steps = num_env_steps(batch)
        self._consumed += env_steps
        self._consumed_by_all += env_steps + event.env_steps_of_others
        self._trained += event.samples_trained
        self._trained_by_all += event.samples_trained + event.samples_of_others
        self._updates.note(event.num_updates_before)
        rows = (
            self._consumption(event, env_steps, now_s),
            staleness_row(
                self._index,
                self._version,
                batch,
                event,
                self._updates,
                self._started_update_s,
                now_s,
            ),
        )
        self._version = event.weights.version
        self._idle_since_s = now_s
        commands: list[Command] = []
        published: tuple[Record, ...] = ()
        if isinstance(event.weights, Weights):
            commands = self._subscribers.publish(event.weights)
            published = (self._published_row(now_s),)
        if event.priorities is not None:
            commands.append(Send(self._buffer, PrioritiesArrived(event.priorities)))
        commands.append(self._report(*rows, *published))
        if self._lag is not None:
            commands += self._move_bound(self._lag, batch, event, now_s)
        if self._is_enough(self._consumed_by_all):
            commands.append(Send(COORDINATOR, StepLimitReached()))
        if self._is_stopping:
            return [*commands, *self._withdraw(now_s)]
        if self._has_reducer and self._offers.is_due(self._version, now_s):
            commands.append(ExportModel())
        return [*commands, *self._checkpoint_if_due(now_s), *self._train_if_idle(now_s)]

    def _move_bound(
        self, lag: LagWindows, batch: Batch, event: Updated, now_s: float
    ) -> list[Command]:
        """Records what is decided about the bound on lag; the next request tells the buffer."""
        assert isinstance(batch, BatchArrived)
        decision = lag.add(batch.rollouts, self._wait_s, event.metrics.get("ess"), now_s)
        if decision is None:
            return []
        before, bound = decision.before, decision.bound
        became = f"stays {bound}" if bound == before else f"{bound} instead of {before}"
        detail = f"{became}: {decision.why}"
        row = TraceEvent(
            t_s=now_s,
            kind=LAG_BOUND,
            host="",
            role=self.address,
            detail=detail,
            max_lag=bound,
            max_lag_before=before,
        )
        return [Log(f"staleness.max_lag {detail}"), self._report(row)]

    def _withdraw(self, now_s: float) -> list[Command]:
        """Ends updates; learners that update together must all know that this one stops."""
        return [Withdraw()] if self._takes_part else self._finish(now_s)

    def _consumption(self, event: Updated, env_steps: int, now_s: float) -> Consumption:
        return Consumption(
            t_s=now_s,
            learner=self._index,
            version=self._version,
            env_steps=env_steps,
            env_steps_total=self._consumed,
            samples_trained=event.samples_trained,
            samples_trained_total=self._trained,
            updates_total=event.num_updates,
            wait_s=self._wait_s,
            update_s=event.update_s,
            metrics=event.metrics,
        )

    def _checkpoint_if_due(self, now_s: float) -> list[Command]:
        standing, self._due = self._due, None
        return [] if standing is None else self._checkpoint(standing, now_s)

    def _checkpoint(
        self, standing: Standing, now_s: float, is_final: bool = False
    ) -> list[Command]:
        """The buffer saves its store as it is when all messages sent to it so far are there."""
        counters = standing.brought_up(self._consumed_by_all, self._trained_by_all, now_s)
        save = SaveCheckpoint(self._version, counters, is_final, standing.known_return)
        if not self._keeps_replay:
            return [save]
        return [Send(self._buffer, ReplayDue(version=self._version, is_final=is_final)), save]

    def _written(self, event: CheckpointWritten, now_s: float) -> list[Command]:
        commands: list[Command] = []
        kind, detail = (
            ("checkpoint-failed", event.error) if event.error else ("checkpoint", event.name)
        )
        if detail:
            commands.append(self._note(kind, detail, now_s))
        if event.is_final:
            counters = Counters(consumed=self._consumed)
            error = f"its last checkpoint was not written: {event.error}" if event.error else ""
            last = Stopped(address=self.address, counters=counters, error=error)
            commands.append(Send(COORDINATOR, last))
        return commands

    def _finish(self, now_s: float) -> list[Command]:
        return self._checkpoint(self._standing, now_s, is_final=True)
