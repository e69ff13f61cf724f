"""Times roles and executors; the times become rows of the table `profile`.

Neither the loop nor a role is aware of it: a profiled role decides as before and periodically adds
a report to its commands.
"""

from __future__ import annotations

from collections.abc import Mapping

from engine.messages import COORDINATOR, Report, Start, Stopped
from engine.roles import commands as c
from engine.roles.commands import Command, EndRun, Role, Send, WriteTrace
from engine.roles.events import Event
from engine.runtime.loop import Executor, RoleInstance
from engine.timing import (
    BATCHING,
    ENVIRONMENT,
    MEETING,
    MERGING,
    RECORDING,
    SAVING,
    TRACING,
    UPDATING,
    WEIGHTS,
    Reading,
    Stopwatch,
)
from engine.trace.records import Profile

REPORT_S = 1.0
"""Least time that a row covers, except for the last."""

SECTION_OF: dict[type[Command], str] = {
    c.CollectRollout: RECORDING,
    c.AbandonRollout: RECORDING,
    c.TakeStep: RECORDING,
    c.LoadWeights: WEIGHTS,
    c.ExportWeights: WEIGHTS,
    c.ExportModel: WEIGHTS,
    c.BlendModel: WEIGHTS,
    c.Update: UPDATING,
    c.UpdateFromSamples: UPDATING,
    c.Withdraw: MEETING,
    c.MergeModel: MERGING,
    c.ForgetModel: MERGING,
    c.StepEnvironment: ENVIRONMENT,
    c.StageAhead: BATCHING,
    c.InsertRollout: BATCHING,
    c.DrawSamples: BATCHING,
    c.SetPriorities: BATCHING,
    c.ForgetActor: BATCHING,
    c.SaveCheckpoint: SAVING,
    c.SaveReplay: SAVING,
    c.PollReplay: SAVING,
    c.Evaluate: RECORDING,
    c.AbandonEvaluation: RECORDING,
    c.WriteTrace: TRACING,
    c.ShowProgress: TRACING,
    c.EndRun: TRACING,
    c.Log: TRACING,
}
"""The section of each command, except for parts of it that are timed separately."""


def profiled(
    hosted: Mapping[str, RoleInstance], process: str, stopwatch: Stopwatch
) -> dict[str, RoleInstance]:
    """The same roles and executors of a process, by address, with timing."""
    return {
        address: RoleInstance(
            ProfiledRole(item.role, process, stopwatch),
            _ProfiledExecutor(item.executor, address, stopwatch),
        )
        for address, item in hosted.items()
    }


class ProfiledRole:
    """Decides like the role, and reports its times.

    Args:
        role: The role that decides.
        process: Its process.
        stopwatch: Of that process; the role is added to it.
    """

    def __init__(self, role: Role, process: str, stopwatch: Stopwatch) -> None:
        self._role = role
        self._process = process
        self._stopwatch = stopwatch
        self._before: Reading | None = None
        self._due_s = 0.0
        stopwatch.add_role(role.address)

    @property
    def address(self) -> str:
        return self._role.address

    def handle(self, event: Event, now_s: float) -> list[Command]:
        """As the role; from `Start` on one row per second, the last before its final report."""
        self._stopwatch.give_turn(self.address)
        commands = self._role.handle(event, now_s)
        if isinstance(event, Start):
            self._before = self._stopwatch.read(self.address)
            self._due_s = now_s + REPORT_S
        is_last = any(_ends(command) for command in commands)
        if self._before is None or not (is_last or now_s >= self._due_s):
            return commands
        row = self._row(self._before, now_s)
        if self.address == COORDINATOR:  # a report to itself could arrive after its end
            return [WriteTrace((row,)), *commands]
        report = Send(COORDINATOR, Report(address=self.address, records=[row]))
        return [report, *commands]

    def _row(self, before: Reading, now_s: float) -> Profile:
        self._before = after = self._stopwatch.read(self.address)
        self._due_s = now_s + REPORT_S
        spent_ns = {name: ns - before.wall_ns[name] for name, ns in after.wall_ns.items()}
        return Profile(
            t_s=now_s,
            role=self.address,
            process=self._process,
            wall_s=sum(spent_ns.values()) / 1e9,
            cpu_s=(after.cpu_ns - before.cpu_ns) / 1e9,
            process_cpu_s=(after.process_cpu_ns - before.process_cpu_ns) / 1e9,
            sections_s={name: ns / 1e9 for name, ns in spent_ns.items() if ns},
        )


def _ends(command: Command) -> bool:
    """Whether these commands include the role's final report."""
    if isinstance(command, Send):
        return isinstance(command.message, Stopped)
    return isinstance(command, EndRun)


class _ProfiledExecutor:
    """Performs like the executor, each command in its section."""

    def __init__(self, executor: Executor, address: str, stopwatch: Stopwatch) -> None:
        self._executor = executor
        self._address = address
        self._stopwatch = stopwatch
        self._advance = stopwatch.timed(RECORDING, executor.advance)
        self._perform = {
            section: stopwatch.timed(section, executor.perform)
            for section in set(SECTION_OF.values())
        }

    @property
    def is_busy(self) -> bool:
        return self._executor.is_busy

    def perform(self, command: Command) -> list[Event]:
        return self._perform[SECTION_OF[type(command)]](command)

    def advance(self, budget_s: float) -> list[Event]:
        self._stopwatch.give_turn(self._address)
        return self._advance(budget_s)

    def close(self) -> None:
        self._executor.close()
