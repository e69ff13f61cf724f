"""The commands of roles, which the runtime performs; their results return as events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from engine.messages import AnyMessage, StepTaken
from engine.progress import LimiterState, MeanReturn, Progress, RunCounters
from engine.roles.events import Event
from engine.rollout import Priorities, Rollout, Samples, Weights
from engine.trace.records import Record
from engine.trace.summary import Summary


@dataclass(frozen=True)
class Send:
    """Send a message to a role, in this process or another."""

    to: str
    message: AnyMessage


@dataclass(frozen=True)
class CollectRollout:
    """Actor: collect one rollout under this ticket. Gives `RolloutCollected`."""

    ticket: int


@dataclass(frozen=True)
class AbandonRollout:
    """Actor: abandon the unfinished rollout. Gives `RolloutAbandoned`."""


@dataclass(frozen=True)
class LoadWeights:
    """Actor: act with these weights from now on."""

    weights: Weights


@dataclass(frozen=True)
class ExportWeights:
    """Learner: copy the parameters out. Gives `WeightsExported`."""

    version: int


@dataclass(frozen=True)
class Update:
    """Learner: train on these rollouts. Gives `Updated`.

    `progress` is the share of `stop.env_steps` consumed before, in [0, 1].
    """

    rollouts: tuple[Rollout, ...]
    progress: float = 0.0


@dataclass(frozen=True)
class StageAhead:
    """Learner: this is what the update after the one under way will be given; begin to move it."""

    batch: tuple[Rollout, ...] | Samples


@dataclass(frozen=True)
class Withdraw:
    """Learner: stop taking part in joint updates. Gives `Withdrawn`."""


@dataclass(frozen=True)
class ExportModel:
    """Learner: copy the parameters out for the reducer. Gives `ModelExported`."""


@dataclass(frozen=True)
class BlendModel:
    """Learner: move to this merged model, keeping what was learnt since the last `ExportModel`."""

    merged: Weights


@dataclass(frozen=True)
class MergeModel:
    """Reducer: merge a group's model with those of the others. Gives `ModelsMerged`.

    `shares` are the weights of the groups in a mean; a parameter server does not use them.
    `has_answer`: whether the group received the answer to the model that it offered before.
    """

    group: int
    weights: Weights
    shares: Mapping[int, float]
    has_answer: bool


@dataclass(frozen=True)
class ForgetModel:
    """Reducer: exclude this group's model from now on."""

    group: int


@dataclass(frozen=True)
class StepEnvironment:
    """Environment: take step `number`, or reset if the actions are empty. Gives
    `EnvironmentStepped`.

    `actions` has those of each actor, in order, as `StepRequested` has them.
    """

    number: int
    actions: tuple[bytes, ...]


@dataclass(frozen=True)
class TakeStep:
    """Actor: continue with the step that a remote environment has taken."""

    taken: StepTaken


@dataclass(frozen=True)
class UpdateFromSamples:
    """Learner: train on these samples from replay. Gives `Updated`; `progress` as in `Update`."""

    samples: Samples
    progress: float = 0.0


@dataclass(frozen=True)
class InsertRollout:
    """Replay buffer: store this rollout, in place of the oldest if the store is full."""

    rollout: Rollout


@dataclass(frozen=True)
class DrawSamples:
    """Replay buffer: draw one batch. Gives `SamplesDrawn`; `env_steps` as in `SamplesInfo`."""

    env_steps: int


@dataclass(frozen=True)
class SetPriorities:
    """Replay buffer: set the priorities of these transitions."""

    priorities: Priorities


@dataclass(frozen=True)
class SaveReplay:
    """Replay buffer: begin to save the store as it is now, beside everything else.

    `has_batch`: the last batch that was drawn has not been trained on yet, and belongs to it.
    """

    version: int
    limiter: LimiterState
    env_steps_consumed: int | None
    has_batch: bool


@dataclass(frozen=True)
class PollReplay:
    """Replay buffer: ask how saving goes. Gives `ReplaySaved` or `ReplayUnsaved`."""


@dataclass(frozen=True)
class ForgetActor:
    """Buffer: accept nothing more from this incarnation of an actor, nor from earlier ones."""

    actor: int
    epoch: int


@dataclass(frozen=True)
class SaveCheckpoint:
    """Learner: write a checkpoint. Gives `CheckpointWritten`."""

    version: int
    counters: RunCounters
    is_final: bool = False
    known_return: MeanReturn | None = None


@dataclass(frozen=True)
class Log:
    """Learner: write a line to the log of its process."""

    text: str


@dataclass(frozen=True)
class Evaluate:
    """Evaluator: play all episodes with the loaded weights. Gives `Evaluated`."""


@dataclass(frozen=True)
class AbandonEvaluation:
    """Evaluator: abandon the unfinished evaluation."""


@dataclass(frozen=True)
class Wake:
    """Give `TimerFired` after this time; a later `Wake` of the same role replaces it."""

    after_s: float


@dataclass(frozen=True)
class StartRun:
    """Coordinator: set the run's clock to zero and send `Start` to all of these.

    The clock of a resumed run continues from `elapsed_s`. If the run `is_under_way`, its clock is
    not reset: these roles joined late.
    """

    addresses: tuple[str, ...]
    is_under_way: bool = False
    elapsed_s: float = 0.0


@dataclass(frozen=True)
class WriteTrace:
    """Coordinator: append to the trace tables."""

    records: tuple[Record, ...]


@dataclass(frozen=True)
class ShowProgress:
    """Coordinator: show the run's progress to the user."""

    progress: Progress


@dataclass(frozen=True)
class EndRun:
    """Coordinator: the run has ended; write traces and summary to disk, then report the end."""

    summary: Summary


@dataclass(frozen=True)
class Quit:
    """End this process gracefully."""


Command: TypeAlias = (
    Send
    | CollectRollout
    | AbandonRollout
    | LoadWeights
    | ExportWeights
    | Update
    | StageAhead
    | Withdraw
    | ExportModel
    | BlendModel
    | MergeModel
    | ForgetModel
    | StepEnvironment
    | TakeStep
    | UpdateFromSamples
    | InsertRollout
    | DrawSamples
    | SetPriorities
    | SaveReplay
    | PollReplay
    | ForgetActor
    | SaveCheckpoint
    | Log
    | Evaluate
    | AbandonEvaluation
    | Wake
    | StartRun
    | WriteTrace
    | ShowProgress
    | EndRun
    | Quit
)


class Role(Protocol):
    """A state machine: it owns its state, decides, and never blocks."""

    @property
    def address(self) -> str: ...

    def handle(self, event: Event, now_s: float) -> list[Command]:
        """Handles one event.

        Args:
            event: A message, the result of a command, or a timer.
            now_s: On the run's timeline.

        Returns:
            The commands that the runtime performs, in this order.

        Raises:
            RuntimeError: The role does not take this event: an error of the program.
        """
        ...
