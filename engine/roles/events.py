"""The events of roles: a message arrived, a command was performed, or a timer fired."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from msgspec import UNSET, UnsetType

from engine.messages import AnyMessage, StepTaken
from engine.rollout import Priorities, Rollout, Samples, Weights
from engine.spaces.team import TeamReturns
from engine.trace.records import Episode


@dataclass(frozen=True)
class RolloutCollected:
    """A rollout is complete; `episodes` ended within it (times on the run's timeline). Of a team,
    `agent_steps` counts those of its agents."""

    rollout: Rollout
    episodes: tuple[Episode, ...]
    agent_steps: int | UnsetType = UNSET


@dataclass(frozen=True)
class RolloutAbandoned:
    """An unfinished rollout of `num_env_steps` was abandoned (0 if there was none)."""

    num_env_steps: int
    collect_s: float
    episodes: tuple[Episode, ...]
    agent_steps: int | UnsetType = UNSET


@dataclass(frozen=True)
class WeightsExported:
    weights: Weights


@dataclass(frozen=True)
class WeightsPending:
    """Weights of this version are on their way; `WeightsExported` comes when they are there."""

    version: int


@dataclass(frozen=True)
class Updated:
    """An update is finished.

    `samples_trained` counts every use of a sample; `num_updates` is the total number of optimiser
    steps, `num_updates_before` the same before it. For samples from replay, `samples_by_version`
    counts them by behaviour version. `ratios_by_lag` has statistics of importance ratios, by fields
    of `Staleness`. If several learners make an update together, `env_steps_of_others` and
    `samples_of_others` are the shares of the others.
    """

    weights: Weights | WeightsPending
    samples_trained: int
    num_updates: int
    update_s: float
    metrics: dict[str, float]
    num_updates_before: int = 0
    samples_by_version: Mapping[int, int] = field(default_factory=dict)
    ratios_by_lag: Mapping[str, dict[int, float]] = field(default_factory=dict)
    priorities: Priorities | None = None
    env_steps_of_others: int = 0
    samples_of_others: int = 0


@dataclass(frozen=True)
class SamplesDrawn:
    samples: Samples


@dataclass(frozen=True)
class UpdateDeclined:
    """Another learner has withdrawn, so this update did not take place, nor will any other."""


@dataclass(frozen=True)
class Withdrawn:
    """This learner no longer takes part in joint updates."""


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
    """An actor's remote environment must take this step (a reset if `action` is empty)."""

    number: int
    action: bytes


@dataclass(frozen=True)
class EnvironmentStepped:
    taken: StepTaken


@dataclass(frozen=True)
class CheckpointWritten:
    """A checkpoint was written, or `error` says why not; earlier ones are unchanged.

    `name` is empty if another learner writes the same checkpoint.
    """

    name: str
    error: str = ""
    is_final: bool = False


@dataclass(frozen=True)
class ReplaySaved:
    """A replay store was saved, or `error` says why not; those saved earlier are unchanged.

    `num_bytes` were written in `seconds`, beside the buffer's other work.
    """

    version: int
    num_bytes: int = 0
    seconds: float = 0.0
    error: str = ""


@dataclass(frozen=True)
class ReplayUnsaved:
    """Saving the replay store goes on."""


@dataclass(frozen=True)
class ReadyToTrain:
    """A learner with a fixed lag has what takes its optimiser steps, which changes no more."""


@dataclass(frozen=True)
class Noted:
    """Something to record in the trace, as an event of this kind."""

    kind: str
    detail: str


@dataclass(frozen=True)
class Evaluated:
    """Returns and lengths of all episodes of an evaluation, in the order of their seeds; of a
    team, also the mean returns of agents and policies."""

    returns: tuple[float, ...]
    lengths_env_steps: tuple[int, ...]
    team: TeamReturns | None = None


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
    | CheckpointWritten
    | ReplaySaved
    | ReplayUnsaved
    | Noted
    | ReadyToTrain
    | SamplesDrawn
    | Evaluated
    | TimerFired
)
