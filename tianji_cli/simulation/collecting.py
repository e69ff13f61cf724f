"""What actors do, and environments in processes of their own, as durations."""

from __future__ import annotations

from dataclasses import dataclass, field

from engine.graph.workload import GroupWork
from engine.messages import StepTaken
from engine.roles.commands import CollectRollout, Command, LoadWeights, StepEnvironment, TakeStep
from engine.roles.events import EnvironmentStepped, Event, RolloutCollected, StepWanted
from engine.rollout import Rollout, RolloutInfo
from engine.runtime.loop import SLICE_S
from tianji_cli.simulation.costs import Cost
from tianji_cli.simulation.performers import NO_BYTES, Common, Idle
from tianji_cli.simulation.process import Done, SimulatedProcess


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
        taken = StepTaken(number=command.number, observation=b"")
        process.compute(
            self.step.draw_s(self.common.dice),
            self.step.share,
            lambda: done((EnvironmentStepped(taken),)),
        )
