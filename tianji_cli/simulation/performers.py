"""What executors do, as durations: the arrays are empty, the events are those of the real ones."""

from __future__ import annotations

import random
from collections.abc import Callable
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
    CollectRollout,
    Command,
    DrawSamples,
    Evaluate,
    ExportModel,
    ExportWeights,
    LoadWeights,
    MergeModel,
    StepEnvironment,
    TakeStep,
    Update,
    UpdateFromSamples,
)
from engine.roles.events import (
    EnvironmentStepped,
    Evaluated,
    Event,
    ModelExported,
    ModelsMerged,
    RolloutCollected,
    SamplesDrawn,
    StepWanted,
    Updated,
    WeightsExported,
)
from engine.rollout import Priorities, Rollout, RolloutInfo, Samples, SamplesInfo, Weights
from tianji_cli.simulation.costs import Cost
from tianji_cli.simulation.process import Done, SimulatedProcess
from tianji_cli.simulation.timeline import Timeline

NO_BYTES = np.zeros(0, np.uint8)
SLICE_S = 0.01
"""As of `engine.runtime.loop`: what is collected beside other roles stops for them after this."""


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
class Collecting:
    """An actor that collects rollouts.

    Args:
        common: Shared.
        index: Its number.
        work: Of its group.
        fill: Env steps of a rollout over T x B.
        collect: Cost of a rollout with its own environments.
        act: Cost of choosing the actions of one vector step; environments are then stepped
            elsewhere.
        on_device: Whether it acts on a GPU.
    """

    common: Common
    index: int
    work: GroupWork
    fill: float
    collect: Cost
    act: Cost | None = None
    on_device: bool = False
    is_busy: bool = field(default=False, init=False)
    _version: int = field(default=-1, init=False)
    _ticket: int = field(default=0, init=False)
    _start_s: float = field(default=0.0, init=False)
    _left: float = field(default=0.0, init=False)
    """Of the rollout: seconds of collecting, or steps taken elsewhere."""
    _requests: int = field(default=0, init=False)
    _sequence: int = field(default=0, init=False)
    _env_steps: int = field(default=0, init=False)

    def perform(self, process: SimulatedProcess, command: Command, done: Done) -> None:
        match command:
            case LoadWeights(weights=weights):
                self._version = weights.version
            case CollectRollout(ticket=ticket):
                self._ticket, self._start_s = ticket, self.common.timeline.now_s
                self._left = self.work.num_steps
                if self.act is None:
                    self._left = self.collect.draw_s(self.common.dice)
                self.is_busy = True
            case TakeStep():
                self.common.env_steps_elsewhere += self.work.num_envs * self.fill
                self._left -= 1
                self.is_busy = True
        done(())

    def advance(self, process: SimulatedProcess, done: Done) -> None:
        self.is_busy = False
        if self.act is not None:
            self._advance_remote(process, self.act, done)
            return
        step_s = self.collect.mean_s / self.work.num_steps
        part_s = self._left if process.is_alone else min(self._left, max(SLICE_S, step_s))
        self._left -= part_s

        def end() -> None:
            self.is_busy = self._left > 0
            done(() if self.is_busy else (self._collected(),))

        process.compute(part_s, self.collect.share, end, on_device=self.on_device)

    def _advance_remote(self, process: SimulatedProcess, act: Cost, done: Done) -> None:
        if self._left <= 0:
            done((self._collected(),))
            return
        self._requests += 1
        wanted = StepWanted(number=self._requests, action=b"")
        process.compute(act.draw_s(self.common.dice), act.share, lambda: done((wanted,)))

    def _collected(self) -> Event:
        env_steps = max(1, round(self.work.rollout_steps * self.fill))
        self._env_steps += env_steps
        info = RolloutInfo(
            actor=self.index,
            epoch=0,
            sequence=self._sequence,
            ticket=self._ticket,
            version_min=self._version,
            version_max=self._version,
            num_env_steps=env_steps,
            total_env_steps=self._env_steps,
            start_s=self._start_s,
            end_s=self.common.timeline.now_s,
        )
        self._sequence += 1
        return RolloutCollected(Rollout(info, NO_BYTES), ())


@dataclass
class Stepping(Idle):
    """Environments that are stepped for an actor elsewhere; `step` is the cost of a vector step."""

    common: Common
    step: Cost

    def perform(self, process: SimulatedProcess, command: Command, done: Done) -> None:
        if not isinstance(command, StepEnvironment):
            done(())
            return
        taken = StepTaken(number=command.request.number, observation=b"")
        process.compute(
            self.step.draw_s(self.common.dice),
            self.step.share,
            lambda: done((EnvironmentStepped(taken),)),
        )


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


class Meeting:
    """Where learners that make every update together wait for each other.

    Args:
        timeline: Simulated time.
        count: Learners.
        sum_s: How long it takes to sum a gradient over them, once all are there.
    """

    def __init__(self, timeline: Timeline, count: int, sum_s: float) -> None:
        self._timeline, self._count, self._sum_s = timeline, count, sum_s
        self._waiting: list[Callable[[], None]] = []

    def join(self, go_on: Callable[[], None]) -> None:
        """Calls this once all learners have joined, and the sum is known."""
        self._waiting.append(go_on)
        if len(self._waiting) == self._count:
            all_of_them, self._waiting = self._waiting, []
            end_s = self._timeline.now_s + self._sum_s
            for call in all_of_them:
                self._timeline.at(end_s, call)


@dataclass
class Training(Idle):
    """A learner.

    Args:
        common: Shared.
        work: Of its group.
        update: Cost of a batch.
        num_updates: Optimiser steps of a batch.
        meeting: With the learners that share each batch with it.
        others: Env steps that these take of each batch.
    """

    common: Common
    work: GroupWork
    update: Cost
    num_updates: int
    meeting: Meeting | None = None
    others: int = 0
    _version: int = field(default=0, init=False)

    def perform(self, process: SimulatedProcess, command: Command, done: Done) -> None:
        match command:
            case ExportWeights():
                done((WeightsExported(self._weights()),))
            case ExportModel():
                done((ModelExported(self._weights()),))
            case Update() | UpdateFromSamples():
                self._train(process, done)
            case _:
                done(())

    def _weights(self) -> Weights:
        return Weights(self._version, NO_BYTES)

    def _train(self, process: SimulatedProcess, done: Done) -> None:
        wall_s = self.update.draw_s(self.common.dice)
        began_s = self.common.timeline.now_s
        if self.meeting is None:
            end = self._end(began_s, done)
            process.compute(wall_s, self.update.share, end, on_device=True)
        else:
            self._train_jointly(process, self.meeting, wall_s, self._end(began_s, done))

    def _train_jointly(
        self, process: SimulatedProcess, meeting: Meeting, wall_s: float, end: Callable[[], None]
    ) -> None:
        """Agrees to make the update, then sums the gradients of each of its steps."""
        left = self.num_updates

        def step() -> None:
            nonlocal left
            if not left:
                end()
                return
            left -= 1
            share = self.update.share
            process.compute(wall_s / self.num_updates, share, meet, on_device=True)

        def meet() -> None:
            process.block(meeting.join, step)

        meet()

    def _end(self, began_s: float, done: Done) -> Callable[[], None]:
        def end() -> None:
            now_s = self.common.timeline.now_s
            acted, self._version = self._version, self._version + 1
            replay = self.work.replay
            done(
                (
                    Updated(
                        weights=self._weights(),
                        samples_trained=self.work.batch_size,
                        num_updates=self._version * self.num_updates,
                        update_s=now_s - began_s,
                        metrics={},
                        samples_by_version={acted: self.work.batch_size} if replay else {},
                        priorities=Priorities(NO_BYTES)
                        if replay and replay.has_priorities
                        else None,
                        env_steps_of_others=self.others,
                    ),
                )
            )

        return end


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
