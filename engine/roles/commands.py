"""What a role wants done. The runtime performs it; what comes of it returns as an event."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from engine.messages import AnyMessage, StepRequested, StepTaken
from engine.progress import Progress, RunCounters
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
    """Actor: give up the unfinished rollout. Gives `RolloutAbandoned`."""


@dataclass(frozen=True)
class LoadWeights:
    """Actor: act with these from now on."""

    weights: Weights


@dataclass(frozen=True)
class ExportWeights:
    """Learner: copy the parameters out. Gives `WeightsExported`."""

    version: int


@dataclass(frozen=True)
class Update:
    """Learner: train on these rollouts. Gives `Updated`."""

    rollouts: tuple[Rollout, ...]


@dataclass(frozen=True)
class Withdraw:
    """Learner of several that update together: take part no longer. Gives `Withdrawn`."""


@dataclass(frozen=True)
class ExportModel:
    """Learner: copy the parameters out for the reducer. Gives `ModelExported`."""


@dataclass(frozen=True)
class BlendModel:
    """Learner: move to this merged model, keeping what was learnt since the last `ExportModel`."""

    merged: Weights


@dataclass(frozen=True)
class MergeModel:
    """Reducer: take in the model of a group, then merge all. Gives `ModelsMerged`.

    `shares` says how much each group weighs in a mean; a parameter server does not need it.
    `has_answer` says whether the group has taken in what came of the model that it offered before.
    """

    group: int
    weights: Weights
    shares: Mapping[int, float]
    has_answer: bool


@dataclass(frozen=True)
class ForgetModel:
    """Reducer: this group's model counts no longer."""

    group: int


@dataclass(frozen=True)
class StepEnvironment:
    """Environment: reset or take a step. Gives `EnvironmentStepped`."""

    request: StepRequested


@dataclass(frozen=True)
class TakeStep:
    """Actor: go on with the step that a remote environment has taken."""

    taken: StepTaken


@dataclass(frozen=True)
class UpdateFromSamples:
    """Learner: train on these samples from replay. Gives `Updated`."""

    samples: Samples


@dataclass(frozen=True)
class InsertRollout:
    """Replay buffer: keep this rollout, in the place of the oldest if there is no other."""

    rollout: Rollout


@dataclass(frozen=True)
class DrawSamples:
    """Replay buffer: draw one batch. Gives `SamplesDrawn`."""

    env_steps: int


@dataclass(frozen=True)
class SetPriorities:
    """Replay buffer: these transitions are worth so much."""

    priorities: Priorities


@dataclass(frozen=True)
class ForgetActor:
    """Buffer: nothing more is taken in from this incarnation of an actor, nor from earlier ones."""

    actor: int
    epoch: int


@dataclass(frozen=True)
class SaveCheckpoint:
    """Learner: make what was learnt so far durable. Gives `CheckpointWritten`."""

    version: int
    counters: RunCounters
    is_final: bool = False


@dataclass(frozen=True)
class Evaluate:
    """Evaluator: play all episodes with the weights that are loaded. Gives `Evaluated`."""


@dataclass(frozen=True)
class AbandonEvaluation:
    """Evaluator: give up the unfinished evaluation."""


@dataclass(frozen=True)
class Wake:
    """Give `TimerFired` after so long; a later `Wake` of the same role replaces it."""

    after_s: float


@dataclass(frozen=True)
class StartRun:
    """Coordinator: set the run's clock to zero and send `Start` to all of these.

    A run that goes on from a checkpoint goes on in time as well, from `elapsed_s`. While the run
    `is_under_way`, its clock goes on: these have come late.
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
    """Coordinator: tell the user how far the run is."""

    progress: Progress


@dataclass(frozen=True)
class EndRun:
    """Coordinator: the run is over; make traces and summary durable, then tell the user."""

    summary: Summary


@dataclass(frozen=True)
class Quit:
    """End this process in good order."""


Command: TypeAlias = (
    Send
    | CollectRollout
    | AbandonRollout
    | LoadWeights
    | ExportWeights
    | Update
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
    | ForgetActor
    | SaveCheckpoint
    | Evaluate
    | AbandonEvaluation
    | Wake
    | StartRun
    | WriteTrace
    | ShowProgress
    | EndRun
    | Quit
)
