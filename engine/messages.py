"""The messages between roles: the events that a role handles, wherever the sender runs.

`Message` subclasses travel as MessagePack; `RolloutArrived`, `WeightsArrived`, `SamplesArrived`
and `PrioritiesArrived` carry a buffer and travel as one raw frame (`engine.wire.codec`);
`BatchArrived` as one frame per rollout.
Addresses are `<role>-<index>`, and plain `coordinator`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import msgspec

from engine.progress import Progress, Standing
from engine.rollout import Priorities, Rollout, RolloutInfo, Samples, Weights
from engine.trace.records import Record

COORDINATOR = "coordinator"
TAKERS = "takers"
"""Destination of weights: all roles of a process that take weights. One encoded buffer is sent to
many processes, so its contents must not differ between them."""
TAKES_WEIGHTS = frozenset({"actor", "evaluator"})


def role_of(address: str) -> str:
    """`actor-3` -> `actor`.

    >>> role_of("actor-3")
    'actor'
    """
    return address.partition("-")[0]


def index_of(address: str) -> int:
    """`actor-3` -> 3; -1 if it has no number.

    >>> index_of("actor-3"), index_of("coordinator")
    (3, -1)
    """
    number = address.rpartition("-")[2]
    return int(number) if number.isdecimal() else -1


def source_of(actor: int, epoch: int) -> str:
    """Names one incarnation of an actor.

    >>> source_of(2, 1)
    'actor-2/1'
    """
    return f"actor-{actor}/{epoch}"


class Message(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A small message; the sender sets `sender`, the receiver checks it."""


class TicketRequested(Message, frozen=True, kw_only=True):
    """Actor to buffer: ready to collect, holding these weights. Idempotent.

    `epoch` is the incarnation that asks: one that was given up can still send, and gets nothing.
    `last_ticket` is the newest ticket whose rollout it has sent, -1 before the first: if the buffer
    still waits for that rollout, it was lost in transit.
    """

    actor: str
    held_version: int
    epoch: int = 0
    last_ticket: int = -1


class TicketGranted(Message, frozen=True, kw_only=True):
    """Buffer to actor: collect one rollout, with weights at least this new.

    If the lag is fixed, with exactly these; `next_version` is then that of the actor's next
    rollout, so that it can request those weights in time. If the bound on lag moves, `max_lag` is
    the one of this rollout.
    """

    ticket: int
    min_version: int
    next_version: int | None = None
    max_lag: int | None = None


class Receipt(Message, frozen=True, kw_only=True):
    """Process to process, an ack: all messages of this session before `next_number` have arrived.

    It is not for a role (`engine.wire.reliable`).
    """

    session: int
    next_number: int


class BatchRequested(Message, frozen=True, kw_only=True):
    """Learner to buffer: requests batch number `batch`. Idempotent.

    `consumed_env_steps` is what the learner has trained on so far, over the whole run. `attempt`
    grows when a batch of this number was sent and lost: another must replace it. If the bound on
    lag moves, `max_lag` is that of rollouts admitted from now on.
    """

    learner: str
    batch: int
    consumed_env_steps: int
    attempt: int = 0
    max_lag: int | None = None


class BatchSent(Message, frozen=True, kw_only=True):
    """Buffer to learner: the batch that was requested again was sent before this message."""

    batch: int
    attempt: int


class WeightsRequested(Message, frozen=True, kw_only=True):
    """Actor to learner: subscribes to weights newer than these. Idempotent.

    If `version` is given, requests exactly these weights, as soon as they exist, and no others.
    """

    actor: str
    held_version: int
    version: int | None = None


class Joined(Message, frozen=True, kw_only=True):
    """A process is ready: its sockets are bound and connected."""

    address: str
    host: str
    pid: int
    protocol: int


class Start(Message, frozen=True, kw_only=True):
    """Coordinator to all roles, once all have joined.

    `origin_ns` is the run's time zero on the monotonic clock of the coordinator's host; a process
    on another host adds the offset that was measured for it.
    """

    origin_ns: int


class CheckpointDue(Message, frozen=True, kw_only=True):
    """Coordinator to learner: write a checkpoint."""

    standing: Standing


class ReplayDue(Message, frozen=True, kw_only=True):
    """Learner to replay buffer: save the store, for the checkpoint of this version.

    It comes after the priorities of all batches trained by then. If it `is_final`, the store is
    saved once all rollouts have arrived.
    """

    version: int
    is_final: bool = False


class Stop(Message, frozen=True, kw_only=True):
    """Coordinator to one role: finish what must be finished, answer `Stopped`.

    `sent_rollouts` tells a buffer how many rollouts each actor has sent, so that it waits for
    those in transit, and `sent_env_steps` how many env steps these are, so that it can
    count what does not come; `consumed_env_steps` is the learner's final count. `standing` is for
    the last checkpoint of a learner.
    """

    sent_rollouts: dict[str, int] = {}
    sent_env_steps: dict[str, int] = {}
    consumed_env_steps: int = 0
    standing: Standing = Standing()


class Exit(Message, frozen=True, kw_only=True):
    """Coordinator to all roles: the run is over; end the process."""


class GroupLost(Message, frozen=True, kw_only=True):
    """Coordinator to reducer: this group's learner is gone; exclude its model."""

    group: int


class StepRequested(Message, frozen=True, kw_only=True):
    """Actor to environment: take this step, or reset if `action` is empty. Idempotent.

    `action` holds the raw values of [B, ...] in the layout's type; `number` counts requests.
    """

    actor: str
    number: int
    action: bytes


class StepTaken(Message, frozen=True, kw_only=True):
    """Environment to actor: the result of step `number`, raw values of [B, ...] each.

    `reward` is float64, `terminated` and `truncated` are bool, `lives` is int64; after a reset
    these are empty, and so is `lives` if the environment has none. `action` is what all actors
    of the environment chose together; empty if it has one.
    """

    number: int
    observation: bytes
    reward: bytes = b""
    terminated: bytes = b""
    truncated: bytes = b""
    lives: bytes = b""
    action: bytes = b""


class Counters(msgspec.Struct, frozen=True, kw_only=True):
    """A role's final report, in env steps; each role fills in what it owns."""

    collected: int = 0
    """Actor: env steps collected, those of an unfinished rollout included."""
    unsent: int = 0
    """Actor: of these, the ones in the unfinished rollout."""
    sent_rollouts: int = 0
    """Actor: rollouts sent."""
    consumed: int = 0
    """Learner: env steps trained on, each counted once. Replay buffer: env steps inserted."""
    queued: int = 0
    """Buffer: env steps waiting."""
    staged: int = 0
    """Buffer: env steps handed to the learner and not trained on."""
    dropped: int = 0
    """Buffer: env steps dropped, lost ones included."""
    lost_collected: dict[str, int] = {}
    """Buffer: env steps collected by actors that died without a final report, by `source_of` their
    number and epoch."""


class Stopped(Message, frozen=True, kw_only=True):
    """A role's answer to `Stop`; `error` says what it could not do."""

    address: str
    counters: Counters
    error: str = ""


class Report(Message, frozen=True, kw_only=True):
    """Trace records from any role to the coordinator, the only writer of traces."""

    address: str
    records: list[Record]


class StepLimitReached(Message, frozen=True, kw_only=True):
    """Learner or replay buffer to coordinator: `stop.env_steps` are consumed."""


class RoleExited(Message, frozen=True, kw_only=True):
    """Supervisor to coordinator: a process is gone.

    `cause` reads like `was killed by SIGKILL`; `log_tail` holds the last lines of its log.
    """

    process: str
    host: str
    cause: str
    log_tail: list[str]


class Alive(Message, frozen=True, kw_only=True):
    """Supervisor to coordinator and back, every few seconds; a silent one is lost."""

    address: str
    host: str = ""


class Restart(Message, frozen=True, kw_only=True):
    """Coordinator to a supervisor: start this actor again, as its incarnation `epoch`."""

    process: str
    epoch: int


class Probe(Message, frozen=True, kw_only=True):
    """Coordinator to a process: asks whether its event loop still runs."""

    number: int


class ProbeAnswered(Message, frozen=True, kw_only=True):
    """The answer of a process, from its loop.

    `longest_turn_s` is the longest iteration of its loop so far; `work` grows with everything
    that it collects, steps, stores or trains.
    """

    process: str
    number: int
    longest_turn_s: float
    work: int


class StackWanted(Message, frozen=True, kw_only=True):
    """Coordinator to a supervisor: report the stacks of a process silent for `silent_s`."""

    process: str
    silent_s: float


class ActorLost(Message, frozen=True, kw_only=True):
    """Coordinator to a buffer: incarnation `epoch` of this actor is gone. Idempotent.

    `collected` is what it had reported as collected, in env steps; what has not arrived of it
    never will.
    """

    actor: str
    epoch: int
    collected: int


class TicketVoided(Message, frozen=True, kw_only=True):
    """Coordinator to a buffer: this actor is alive but makes no progress; stop waiting for it.

    What it still sends under its ticket is dropped and counted. It gets no other ticket before it
    asks again, which shows progress; that ticket is valid like any other.
    """

    actor: str


class ProgressShown(Message, frozen=True, kw_only=True):
    """Coordinator to the supervisor beside it: show this to the user."""

    progress: Progress


class StopRequested(Message, frozen=True, kw_only=True):
    """The user or the supervisor requests a graceful stop of the run."""

    reason: Literal["interrupted", "controller-lost"]


class HostGone(Message, frozen=True, kw_only=True):
    """The connection between the command and this host is lost; either side can report it.

    The supervisor there is dead, or about to end its part of the run.
    """

    host: str


class TrackerFailed(Message, frozen=True, kw_only=True):
    """The command to the coordinator, through the supervisor there: one of its trackers has ended.

    Training is not affected; it becomes an event of the run.
    """

    tool: str
    cause: str


@dataclass(frozen=True)
class RolloutArrived:
    """Actor to buffer: a rollout. Also asks for the next ticket, holding `held_version`."""

    rollout: Rollout
    held_version: int

    @property
    def info(self) -> RolloutInfo:
        return self.rollout.info


@dataclass(frozen=True)
class BatchArrived:
    """Buffer to learner: the rollouts of one batch."""

    batch: int
    rollouts: tuple[Rollout, ...]


@dataclass(frozen=True)
class SamplesArrived:
    """Replay buffer to learner: the samples of one batch."""

    batch: int
    samples: Samples


@dataclass(frozen=True)
class PrioritiesArrived:
    """Learner to replay buffer: the new priorities of a batch's samples."""

    priorities: Priorities


@dataclass(frozen=True)
class WeightsArrived:
    """Learner to actor: newer weights; only the latest matters."""

    weights: Weights


@dataclass(frozen=True)
class ModelOffered:
    """Learner to reducer: the model of this group. Answered by `ModelMerged`.

    `answered` is the version of the last model that it offered and got an answer to, -1 before the
    first: a later answer was lost in transit.
    """

    group: int
    weights: Weights
    answered: int = -1


@dataclass(frozen=True)
class ModelMerged:
    """Reducer to learner: all groups together; `version` is that of the model it answers."""

    weights: Weights


SmallMessage: TypeAlias = (
    TicketRequested
    | TicketGranted
    | Receipt
    | BatchRequested
    | BatchSent
    | WeightsRequested
    | Joined
    | Start
    | Stop
    | Exit
    | Stopped
    | Report
    | StepLimitReached
    | RoleExited
    | Alive
    | Restart
    | ActorLost
    | StopRequested
    | HostGone
    | ProgressShown
    | GroupLost
    | CheckpointDue
    | ReplayDue
    | Probe
    | ProbeAnswered
    | StackWanted
    | TicketVoided
    | TrackerFailed
    | StepRequested
    | StepTaken
)
AnyMessage: TypeAlias = (
    SmallMessage
    | RolloutArrived
    | BatchArrived
    | SamplesArrived
    | PrioritiesArrived
    | WeightsArrived
    | ModelOffered
    | ModelMerged
)
