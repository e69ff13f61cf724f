"""The end of a run: every role sends a final report, buffers last, and the ledger is closed.

    STOPPING --all but the buffers have stopped--> DRAINING --the buffers have stopped--> ENDED

Actors and learners report their counts; then the buffers, told how much to expect, count the rest.
A role that does not answer in time is given up.

Pure, like the coordinator that uses it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from engine.messages import Exit, Stop, role_of
from engine.roles.commands import Command, EndRun, Quit, Send, WriteTrace
from engine.roles.coordinator.housekeeping import Housekeeping
from engine.roles.coordinator.run_state import RunPhase, RunState
from engine.roles.coordinator.watchdog import PATIENCE
from engine.trace.records import UNCOUNTED, Ledger, Production
from engine.trace.summary import Summary
from engine.wording import plural

STOP_S = 10.0
"""Time-out for roles to stop, or `PATIENCE` times their longest loop iteration if that is more."""
MAX_STOP_S = 600.0
LOST_COUNTS = "its counts are lost: its actors may have collected more than the ledger has"
SPARE = frozenset({"actor", "environment", "evaluator", "reducer"})
"""Roles whose loss during the shutdown costs only the samples they held. A learner must still write
a checkpoint, and a buffer its count."""


class Shutdown:
    """The shutdown of one run.

    Args:
        run: What the coordinator knows of it.
        housekeeping: Says which roles are stuck, and how long they take for a loop iteration.

    Attributes:
        phase: None before the shutdown has started.
    """

    def __init__(self, run: RunState, housekeeping: Housekeeping) -> None:
        self.phase: RunPhase | None = None
        self._run, self._housekeeping = run, housekeeping
        self._reason = ""
        self._ended_training_s = 0.0
        self._began_s = 0.0
        """When this phase started."""
        self._heard_s = 0.0
        """When a buffer last reported something."""

    def begin(self, reason: str, now_s: float) -> list[Command]:
        """Starts the shutdown."""
        self.phase, self._began_s = RunPhase.STOPPING, now_s
        self._reason, self._ended_training_s = reason, now_s
        self._run.membership.give_up(self._run.membership.missing)
        stops = [
            Send(address, Stop(standing=self._run.totals.standing_of(address, now_s)))
            for address in self._awaited()
        ]
        return [self._run.note("stopping", reason, now_s), *stops, *self.advance(now_s)]

    def give_up(self, roles: Iterable[str]) -> list[Command]:
        """Expects no final report of these. Their buffers know what actors among them had sent."""
        membership, liveness = self._run.membership, self._run.liveness
        silent = sorted(set(roles) - set(membership.last_words) - liveness.absent)
        membership.give_up(roles)
        actors = [role for role in silent if role_of(role) == "actor"]
        return [command for actor in actors for command in liveness.lose(actor)]

    def can_spare(self, roles: Iterable[str]) -> bool:
        """Whether a run at its end can still succeed without a final report of these."""
        return self.phase is not None and all(role_of(role) in SPARE for role in roles)

    def advance(self, now_s: float) -> list[Command]:
        """Moves to the next phase once this one waits for no role."""
        commands: list[Command] = []
        if self.phase is RunPhase.STOPPING and not self._awaits():
            self.phase, self._began_s = RunPhase.DRAINING, now_s
            commands += [Send(buffer, self._run.last_stop(buffer)) for buffer in self._awaited()]
        if self.phase is RunPhase.DRAINING and not self._awaits():
            commands += self._end(now_s)
        return commands

    def hear(self, address: str, now_s: float) -> None:
        """A buffer that reports something while it is awaited still saves its store."""
        if self.phase is RunPhase.DRAINING and role_of(address) == "buffer":
            self._heard_s = min(now_s, self._began_s + MAX_STOP_S)

    def tick(self, now_s: float) -> list[Command]:
        """Gives up silent roles after the time-out."""
        if now_s < max(self._began_s, self._heard_s) + self._limit_s(now_s):
            return []
        commands: list[Command] = []
        for actor in self._housekeeping.stuck_actors(self._awaited()):  # known, and not a failure
            commands += self._run.liveness.lose(actor)
        waited_s = now_s - self._began_s
        words = f"did not stop within {waited_s:.0f} s"
        for role in filter(lambda role: self.can_spare([role]), self._awaited()):
            commands += [self._run.note("given-up", words, now_s, role), *self.give_up([role])]
        if waiting := self._awaited():
            self._run.verdict.fail(f"{', '.join(waiting)} {words}")
            commands += self.give_up(waiting)
        return [*commands, *self.advance(now_s)]

    def _awaited(self) -> list[str]:
        """Roles whose final report is still missing in this phase."""
        return self._run.membership.awaited(
            buffers=self.phase is RunPhase.DRAINING, excused=self._run.excused
        )

    def _awaits(self) -> bool:
        """Whether there are any."""
        return self._run.membership.awaits(
            buffers=self.phase is RunPhase.DRAINING, excused=self._run.excused
        )

    def _limit_s(self, now_s: float) -> float:
        """Time-out of this phase; a role sees `Stop` only between two loop iterations."""
        turn_s = self._housekeeping.longest_turn_s(self._awaited(), now_s)
        return max(STOP_S, min(PATIENCE * turn_s, MAX_STOP_S))

    def _end(self, now_s: float) -> list[Command]:
        self.phase, run = RunPhase.ENDED, self._run
        closed = close_ledger(run, now_s)
        if closed.imbalance:
            run.verdict.fail(
                f"the ledger is {plural(closed.imbalance, 'env step')} off: {closed.ledger}"
            )
        gone = run.membership.gone | run.groups.dead
        everybody = (*run.supervisors, *run.addresses)
        return [
            WriteTrace((*closed.unreported, closed.ledger)),
            *(run.note(UNCOUNTED, LOST_COUNTS, now_s, role) for role in closed.uncounted),
            run.note("ended", run.verdict.status, now_s),
            EndRun(self._summary()),
            *(Send(address, Exit()) for address in everybody if address not in gone),
            Quit(),
        ]

    def _summary(self) -> Summary:
        return self._run.totals.summary(
            self._run.info,
            status=self._run.verdict.status,
            error=self._run.verdict.error,
            stop_reason=self._reason,
            now_s=self._ended_training_s,
        )


@dataclass(frozen=True)
class FinalLedger:
    """What is left to write when all roles have stopped or are gone.

    Attributes:
        unreported: Rows for env steps that dead actors certainly collected and did not report.
        uncounted: Buffers whose counts are lost, together with unreported rows of actors: more
            can have been collected than the ledger has.
        ledger: The final count.
        imbalance: Env steps that the counts of all roles leave unexplained.
    """

    unreported: tuple[Production, ...]
    uncounted: tuple[str, ...]
    ledger: Ledger
    imbalance: int


def close_ledger(run: RunState, now_s: float) -> FinalLedger:
    """Makes the final count over all roles, those that died included, and sets it in the totals.

    If a role's counts were lost with it, the ledger has what is known, and balances because the
    remainder counts as in flight. A buffer also knows what its actors had sent.
    """
    groups, totals, liveness = run.groups, run.totals, run.liveness
    last_words = run.membership.last_words
    unreported = liveness.unreported(run.membership.lost_collected, now_s)
    for row in unreported:
        totals.add(row, now_s)
    uncounted = []
    for gap in groups.gaps(last_words, totals, liveness.absent):
        if gap.env_steps:
            row = liveness.untold(gap.actors, gap.env_steps, now_s)
            totals.add(row, now_s)
            unreported.append(row)
        is_silent = gap.actors[0] not in last_words or liveness.has_lost(gap.actors)
        if gap.env_steps or (is_silent and not gap.is_counted):
            uncounted.append(gap.buffer)
    ledger = groups.final_ledger(last_words, totals, liveness.absent, now_s)
    ledger = totals.in_all(ledger)
    totals.close_ledger(ledger)
    imbalance = ledger.collected - ledger.consumed - ledger.dropped - ledger.in_flight
    return FinalLedger(tuple(unreported), tuple(uncounted), ledger, imbalance)
