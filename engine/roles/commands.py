"""What a role wants done. The runtime performs it; what comes of it returns as an event."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from engine.messages import AnyMessage, StepRequested, StepTaken
from engine.progress import Progress
from engine.rollout import Priorities, Rollout, Samples, Weights
from engine.trace.records import Episode, Record
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
    """

    group: int
    weights: Weights
    shares: Mapping[int, float]


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
class SaveCheckpoint:
    """Learner: make what was learnt so far durable."""

    version: int
    counters: Mapping[str, int]


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

    While the run `is_under_way`, its clock goes on: these have come late.
    """

    addresses: tuple[str, ...]
    is_under_way: bool = False


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


@dataclass(frozen=True)
class RolloutCollected:
    """A rollout is complete; `episodes` ended within it (times on the run's timeline)."""

    rollout: Rollout
    episodes: tuple[Episode, ...]


@dataclass(frozen=True)
class RolloutAbandoned:
    """An unfinished rollout of `num_env_steps` was given up (0 if there was none)."""

    num_env_steps: int
    collect_s: float
    episodes: tuple[Episode, ...]


@dataclass(frozen=True)
class WeightsExported:
    weights: Weights


@dataclass(frozen=True)
class Updated:
    """An update is done.

    `samples_trained` counts every use of a sample; `num_updates` optimiser steps in total. Of
    samples from replay, `samples_by_version` counts them by behaviour version.
    """

    weights: Weights
    samples_trained: int
    num_updates: int
    update_s: float
    metrics: dict[str, float]
    samples_by_version: Mapping[int, int] = field(default_factory=dict)
    priorities: Priorities | None = None


@dataclass(frozen=True)
class SamplesDrawn:
    samples: Samples


@dataclass(frozen=True)
class UpdateDeclined:
    """Another learner has withdrawn, so this update did not take place, nor will any other."""


@dataclass(frozen=True)
class Withdrawn:
    """This learner takes part no longer."""


@dataclass(frozen=True)
class ModelExported:
    weights: Weights


@dataclass(frozen=True)
class ModelsMerged:
    """The answer for `group`; `weights.version` is that of its model."""

    group: int
    weights: Weights


@dataclass(frozen=True)
class StepWanted:
    """An actor's remote environment has to take this step (reset, if `action` is empty)."""

    number: int
    action: bytes


@dataclass(frozen=True)
class EnvironmentStepped:
    taken: StepTaken


@dataclass(frozen=True)
class Noted:
    """Something happened that belongs in the trace, as an event of this kind."""

    kind: str
    detail: str


@dataclass(frozen=True)
class Evaluated:
    """Returns and lengths of all episodes of an evaluation, in the order of their seeds."""

    returns: tuple[float, ...]
    lengths_env_steps: tuple[int, ...]


@dataclass(frozen=True)
class TimerFired:
    pass


Event: TypeAlias = (
    AnyMessage
    | RolloutCollected
    | RolloutAbandoned
    | WeightsExported
    | Updated
    | UpdateDeclined
    | Withdrawn
    | ModelExported
    | ModelsMerged
    | StepWanted
    | EnvironmentStepped
    | Noted
    | SamplesDrawn
    | Evaluated
    | TimerFired
)


class Role(Protocol):
    """A state machine: it owns its state and decides; it waits for nothing."""

    @property
    def address(self) -> str: ...

    def handle(self, event: Event, now_s: float) -> list[Command]:
        """Takes one event in and says what to do.

        Raises:
            RuntimeError: The event is impossible in this state, so the program is wrong.
        """
        ...
