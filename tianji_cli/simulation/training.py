"""What learners do, as durations: alone, or together in every update."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from engine.graph.workload import GroupWork
from engine.roles.commands import Command, ExportModel, ExportWeights, Update, UpdateFromSamples
from engine.roles.events import ModelExported, ReadyToTrain, Updated, WeightsExported
from engine.rollout import Priorities, Weights
from tianji_cli.simulation.costs import Cost
from tianji_cli.simulation.performers import NO_BYTES, Common, Idle
from tianji_cli.simulation.process import Done, SimulatedProcess
from tianji_cli.simulation.timeline import Timeline


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
                done((WeightsExported(self._weights()), ReadyToTrain()))
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
