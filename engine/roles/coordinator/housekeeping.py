"""The periodic tasks of a coordinator during a run: checkpoints and the watchdog.

Pure, like the coordinator that uses it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable

from engine.messages import CheckpointDue, ProbeAnswered, StackWanted, index_of, role_of
from engine.roles.commands import Command, Send
from engine.roles.coordinator.run_state import RunState
from engine.roles.coordinator.totals import EVALUATED_LEARNER
from engine.roles.coordinator.watchdog import Silence, Watchdog
from engine.spec import Experiment

MOST_IN_PERIOD = 6
"""Checkpoints in `checkpoint.every_s` because of evaluations that were better than all before."""


class Housekeeping:
    """The periodic tasks of one run.

    Args:
        experiment: Periods and time limits.
        run: What the coordinator knows of the run.
    """

    def __init__(self, experiment: Experiment, run: RunState) -> None:
        self._every_s = experiment.checkpoint.every_s
        self._keeps_best = experiment.checkpoint.keep_best > 0
        self._run = run
        kinds: dict[str, frozenset[str]] = {}
        for address in run.addresses:
            process = run.groups.process_of(address)
            kinds[process] = kinds.get(process, frozenset()) | {role_of(address)}
        self._watchdog = Watchdog(experiment.watchdog, kinds)
        self._saved_s = 0.0
        self._judged_s = 0.0
        """When the evaluated learner was last told to write a checkpoint."""
        self._best_return = -math.inf
        """Of the evaluations that its checkpoints were written with."""

    def start(self, now_s: float) -> None:
        """The run begins."""
        self._saved_s = self._judged_s = now_s
        self._watchdog.start(now_s)

    def tick(self, living: Iterable[str], now_s: float) -> list[Command]:
        """The tasks that are due.

        Args:
            living: Roles that are alive.
            now_s: On the run's timeline.
        """
        roles = sorted(living)
        return [*self._checkpoints(roles, now_s), *self._watch(roles, now_s)]

    def _checkpoints(self, roles: list[str], now_s: float) -> list[Command]:
        """Requests a checkpoint from all learners at the same time."""
        if self._every_s is None or now_s - self._saved_s < self._every_s:
            return []
        self._saved_s = now_s
        return [self._checkpoint(role, now_s) for role in roles if role_of(role) == "learner"]

    def evaluated(self, living: Collection[str], now_s: float) -> list[Command]:
        """An evaluation has ended: requests a checkpoint of its learner if it is the best so far.

        It is requested at once or never, so that the weights written are hardly newer than those
        evaluated. One that comes too early is forgotten, and a later one needs not exceed it.
        """
        role = f"learner-{EVALUATED_LEARNER}"
        if self._every_s is None or not self._keeps_best or role not in living:
            return []
        known = self._run.totals.known_return_of(EVALUATED_LEARNER)
        is_best = known is not None and known.mean > self._best_return
        if not is_best or now_s - self._judged_s < self._every_s / MOST_IN_PERIOD:
            return []
        return [self._checkpoint(role, now_s)]

    def _checkpoint(self, learner: str, now_s: float) -> Command:
        standing = self._run.totals.standing_of(learner, now_s)
        if index_of(learner) == EVALUATED_LEARNER:
            self._judged_s = now_s
            if standing.known_return is not None:
                self._best_return = max(self._best_return, standing.known_return.mean)
        return Send(learner, CheckpointDue(standing=standing))

    def _watch(self, roles: list[str], now_s: float) -> list[Command]:
        """Runs the watchdog; a run of one process, without supervisors, cannot watch itself."""
        if not self._run.liveness.has_supervisors:
            return []
        processes = dict.fromkeys(self._run.groups.process_of(role) for role in roles)
        commands: list[Command] = [
            Send(process, probe) for process, probe in self._watchdog.probes(processes, now_s)
        ]
        for silence in self._watchdog.newly_stuck(now_s):
            commands += self._name(silence, now_s)
        return commands

    def _name(self, silence: Silence, now_s: float) -> list[Command]:
        """Records a stuck process, and requests its stacks from its host."""
        process = silence.process
        host = self._run.membership.host_of(self._run.groups.roles_in(process)[0])
        note = self._run.note("stuck", f"no answer for {silence.seconds:.0f} s", now_s, process)
        commands = [note, *self._do_without(process)]
        if (supervisor := self._run.liveness.supervisor_on(host)) is not None:
            wanted = StackWanted(process=process, silent_s=silence.seconds)
            commands.append(Send(supervisor, wanted))
        return commands

    def _do_without(self, process: str) -> list[Command]:
        """Voids tickets of stuck actors: in mode `block` one would block all others."""
        roles = self._run.groups.roles_in(process)
        if any(role_of(role) not in ("actor", "environment") for role in roles):
            return []
        actors = sorted({actor for role in roles for actor in self._run.groups.actors_of(role)})
        return [command for actor in actors for command in self._run.liveness.do_without(actor)]

    def stuck_actors(self, roles: Iterable[str]) -> list[str]:
        """The actors among these roles, alone in their process, that make no progress."""
        return [
            role
            for role in roles
            if role_of(role) == "actor"
            and self._run.groups.roles_in(self._run.groups.process_of(role)) == [role]
            and self._watchdog.is_stuck(self._run.groups.process_of(role))
        ]

    def longest_turn_s(self, roles: Iterable[str], now_s: float) -> float:
        """The longest loop iteration of the processes of these roles whose host is alive."""
        processes = {
            self._run.groups.process_of(role)
            for role in roles
            if self._run.liveness.is_heard(self._run.membership.host_of(role), now_s)
        }
        return max(map(self._watchdog.longest_turn_s, processes), default=0.0)

    def answered(self, answer: ProbeAnswered, now_s: float) -> list[Command]:
        """A process answers; noted if it was reported as stuck."""
        if not self._watchdog.answered(answer, now_s):
            return []
        return [self._run.note("recovered", "it answers again", now_s, answer.process)]

    def stalled(self, now_s: float) -> str | None:
        """Why the run must end, if no part of it makes progress."""
        return self._watchdog.stalled(now_s) if self._run.liveness.has_supervisors else None
