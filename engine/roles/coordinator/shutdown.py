"""The end of a run: every role sends a final report, buffers last, and the ledger is closed.

    STOPPING --all but the buffers have stopped--> DRAINING --the buffers have stopped--> ENDED

Actors and learners report their counts; then the buffers, told how much to expect, count the rest.
A role that does not answer in time is given up.

Pure, like the coordinator that uses it.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

from engine.messages import COORDINATOR, Exit, Stop, role_of
from engine.roles.commands import Command, EndRun, Quit, Send, WriteTrace
from engine.roles.coordinator.final_ledger import close_ledger
from engine.roles.coordinator.groups import Groups
from engine.roles.coordinator.housekeeping import Housekeeping
from engine.roles.coordinator.liveness import Liveness
from engine.roles.coordinator.membership import Membership
from engine.roles.coordinator.totals import RunInfo, RunTotals
from engine.roles.coordinator.watchdog import PATIENCE
from engine.trace.records import UNCOUNTED, Event
from engine.trace.summary import RunStatus
from engine.wording import plural

STOP_S = 10.0
"""Time-out for roles to stop, or `PATIENCE` times their longest loop iteration if that is more."""
MAX_STOP_S = 600.0
LOST_COUNTS = "its counts are lost: its actors may have collected more than the ledger has"
SPARE = frozenset({"actor", "environment", "evaluator", "reducer"})
"""Roles whose loss during the shutdown costs only the samples they held. A learner must still write
a checkpoint, and a buffer its count."""


class ShutdownPhase(Enum):
    """Phase of a run."""

    JOINING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    DRAINING = "draining"
    ENDED = "ended"


class RunVerdict:
    """The outcome of a run, as far as known."""

    def __init__(self) -> None:
        self.status: RunStatus = "ok"
        self.error: str | None = None

    def fail(self, error: str) -> None:
        """Records a failure; keeps the first cause, since later errors are mostly its results."""
        if self.error is None:
            self.error = error
        if self.status == "ok":
            self.status = "failed"

    def interrupt(self) -> None:
        """The run was interrupted on request."""
        self.status = "interrupted"


class Shutdown:
    """The shutdown of one run.

    Args:
        everybody: Roles and supervisors, which are told to exit at the end.
        info: What the summary says beside the traces.
        groups, membership, liveness, totals, housekeeping, verdict: The coordinator's own.

    Attributes:
        phase: None before the shutdown has started.
    """

    def __init__(
        self,
        everybody: tuple[str, ...],
        info: RunInfo,
        groups: Groups,
        membership: Membership,
        liveness: Liveness,
        totals: RunTotals,
        housekeeping: Housekeeping,
        verdict: RunVerdict,
    ) -> None:
        self.phase: ShutdownPhase | None = None
        self._everybody = everybody
        self._info = info
        self._groups, self._membership, self._liveness = groups, membership, liveness
        self._totals, self._housekeeping, self._verdict = totals, housekeeping, verdict
        self._reason = ""
        self._ended_training_s = 0.0
        self._began_s = 0.0
        """When this phase started."""

    def begin(self, reason: str, now_s: float) -> list[Command]:
        """Starts the shutdown."""
        self.phase, self._began_s = ShutdownPhase.STOPPING, now_s
        self._reason, self._ended_training_s = reason, now_s
        self._membership.give_up(self._membership.missing)
        stops = [
            Send(address, Stop(standing=self._totals.standing_of(address, now_s)))
            for address in self._awaited()
        ]
        return [self._note("stopping", reason, now_s), *stops, *self.advance(now_s)]

    def give_up(self, roles: Iterable[str]) -> list[Command]:
        """Expects no final report of these. Their buffers know what actors among them had sent."""
        silent = sorted(set(roles) - set(self._membership.last_words) - self._liveness.absent)
        self._membership.give_up(roles)
        actors = [role for role in silent if role_of(role) == "actor"]
        return [command for actor in actors for command in self._liveness.lose(actor)]

    def can_spare(self, roles: Iterable[str]) -> bool:
        """Whether a run at its end can still succeed without a final report of these."""
        return self.phase is not None and all(role_of(role) in SPARE for role in roles)

    def advance(self, now_s: float) -> list[Command]:
        """Moves to the next phase once this one waits for no role."""
        commands: list[Command] = []
        if self.phase is ShutdownPhase.STOPPING and not self._awaits():
            self.phase, self._began_s = ShutdownPhase.DRAINING, now_s
            commands += [
                Send(
                    buffer,
                    self._groups.last_stop(buffer, self._membership.last_words, self._totals),
                )
                for buffer in self._awaited()
            ]
        if self.phase is ShutdownPhase.DRAINING and not self._awaits():
            commands += self._end(now_s)
        return commands

    def tick(self, now_s: float) -> list[Command]:
        """Gives up silent roles after the time-out."""
        if now_s < self._began_s + self._limit_s(now_s):
            return []
        commands: list[Command] = []
        for actor in self._housekeeping.stuck_actors(self._awaited()):  # known, and not a failure
            commands += self._liveness.lose(actor)
        waited_s = now_s - self._began_s
        words = f"did not stop within {waited_s:.0f} s"
        for role in filter(lambda role: self.can_spare([role]), self._awaited()):
            commands += [self._note("given-up", words, now_s, role), *self.give_up([role])]
        if waiting := self._awaited():
            self._verdict.fail(f"{', '.join(waiting)} {words}")
            commands += self.give_up(waiting)
        return [*commands, *self.advance(now_s)]

    def _awaited(self) -> list[str]:
        """Roles whose final report is still missing in this phase."""
        return self._membership.awaited(
            buffers=self.phase is ShutdownPhase.DRAINING, excused=self._excused
        )

    def _awaits(self) -> bool:
        """Whether there are any."""
        return self._membership.awaits(
            buffers=self.phase is ShutdownPhase.DRAINING, excused=self._excused
        )

    @property
    def _excused(self) -> set[str]:
        return self._groups.dead | self._liveness.absent

    def _limit_s(self, now_s: float) -> float:
        """Time-out of this phase; a role sees `Stop` only between two loop iterations."""
        turn_s = self._housekeeping.longest_turn_s(self._awaited(), now_s)
        return max(STOP_S, min(PATIENCE * turn_s, MAX_STOP_S))

    def _end(self, now_s: float) -> list[Command]:
        self.phase = ShutdownPhase.ENDED
        closed = close_ledger(self._membership, self._liveness, self._groups, self._totals, now_s)
        if closed.imbalance:
            self._verdict.fail(
                f"the ledger is {plural(closed.imbalance, 'env step')} off: {closed.ledger}"
            )
        summary = self._totals.summary(
            self._info,
            status=self._verdict.status,
            error=self._verdict.error,
            stop_reason=self._reason,
            now_s=self._ended_training_s,
        )
        gone = self._membership.gone | self._groups.dead
        return [
            WriteTrace((*closed.unreported, closed.ledger)),
            *(self._note(UNCOUNTED, LOST_COUNTS, now_s, role) for role in closed.uncounted),
            self._note("ended", self._verdict.status, now_s),
            EndRun(summary),
            *(Send(address, Exit()) for address in self._everybody if address not in gone),
            Quit(),
        ]

    def _note(self, kind: str, detail: str, now_s: float, role: str = COORDINATOR) -> Command:
        host = self._membership.host_of(role)
        row = Event(t_s=now_s, kind=kind, host=host, role=role, detail=detail)
        return WriteTrace((row,))
