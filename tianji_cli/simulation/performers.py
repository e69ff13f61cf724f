"""What executors do, as durations: the arrays are empty, the events are those of the real ones."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import numpy as np

from engine.graph.workload import GroupWork
from engine.messages import (
    BatchArrived,
    ModelMerged,
    ModelOffered,
    PrioritiesArrived,
    RolloutArrived,
    SamplesArrived,
    StepRequested,
    StepTaken,
    WeightsArrived,
)
from engine.roles.commands import (
    Command,
    DrawSamples,
    Evaluate,
    MergeModel,
)
from engine.roles.events import (
    Evaluated,
    ModelsMerged,
    SamplesDrawn,
)
from engine.rollout import Samples, SamplesInfo
from tianji_cli.simulation.costs import Cost
from tianji_cli.simulation.process import Done, SimulatedProcess
from tianji_cli.simulation.timeline import Timeline

NO_BYTES = np.zeros(0, np.uint8)


@dataclass
class Common:
    """What all performers of a simulation share.

    Attributes:
        timeline, dice: Simulated time, and its chance.
        env_steps_elsewhere: Env steps taken by environments in other processes.
    """

    timeline: Timeline
    dice: random.Random
    env_steps_elsewhere: float = 0.0


@dataclass
class Idle:
    """Performs commands that take no time worth mentioning."""

    is_busy: bool = field(default=False, init=False)

    def perform(self, process: SimulatedProcess, command: Command, done: Done) -> None:
        done(())

    def advance(self, process: SimulatedProcess, done: Done) -> None:
        raise RuntimeError("there is nothing to go on with")


@dataclass
class Storing(Idle):
    """A replay buffer; `draw` is the cost of a batch."""

    common: Common
    draw: Cost

    def perform(self, process: SimulatedProcess, command: Command, done: Done) -> None:
        if not isinstance(command, DrawSamples):
            done(())
            return

        def end() -> None:
            now_s = self.common.timeline.now_s
            info = SamplesInfo(
                env_steps=command.env_steps, drawn_s=now_s, age_mean_s=0.0, age_max_s=0.0
            )
            done((SamplesDrawn(Samples(info, NO_BYTES)),))

        process.compute(self.draw.draw_s(self.common.dice), self.draw.share, end)


@dataclass
class Merging(Idle):
    """A reducer; `merge` is the cost of a model."""

    common: Common
    merge: Cost

    def perform(self, process: SimulatedProcess, command: Command, done: Done) -> None:
        if not isinstance(command, MergeModel):
            done(())
            return
        merged = ModelsMerged(command.group, command.weights)
        process.compute(
            self.merge.draw_s(self.common.dice), self.merge.share, lambda: done((merged,))
        )


@dataclass
class Evaluating(Idle):
    """An evaluator; `cost` is that of an evaluation."""

    common: Common
    cost: Cost

    def perform(self, process: SimulatedProcess, command: Command, done: Done) -> None:
        if not isinstance(command, Evaluate):
            done(())
            return
        played = Evaluated(returns=(0.0,), lengths_env_steps=(0,))
        process.compute(
            self.cost.draw_s(self.common.dice), self.cost.share, lambda: done((played,))
        )


def bytes_of(message: object, work: GroupWork, weights_bytes: int) -> int:
    """What a message has on the wire between hosts, apart from its header."""
    match message:
        case WeightsArrived() | ModelOffered() | ModelMerged():
            return weights_bytes
        case RolloutArrived():
            return work.rollout_bytes
        case BatchArrived(rollouts=rollouts):
            return len(rollouts) * work.rollout_bytes
        case SamplesArrived():
            return work.batch_bytes
        case PrioritiesArrived():
            return work.priority_bytes
        case StepRequested() | StepTaken():
            return work.rollout_bytes // max(work.num_steps, 1)
    return 0
