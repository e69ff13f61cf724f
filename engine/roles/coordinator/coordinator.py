"""The coordinator: starts a run, watches it, stops it, and writes down what the roles report.

    JOINING --all joined--> RUNNING --stop rule, failure, request--> the ending (`shutdown.py`)

A group whose learner or buffer dies is lost; the run continues while another is left.
No sample and no weights pass through it.
"""

from __future__ import annotations

from collections.abc import Mapping

from engine import PROTOCOL_VERSION
from engine.messages import (
    COORDINATOR,
    Alive,
    HostGone,
    Joined,
    ProbeAnswered,
    Report,
    RoleExited,
    Start,
    StepLimitReached,
    Stopped,
    StopRequested,
    TrackerFailed,
    role_of,
)
from engine.roles.commands import Command, ShowProgress, StartRun, Wake, WriteTrace
from engine.roles.coordinator.groups import Groups
from engine.roles.coordinator.housekeeping import Housekeeping
from engine.roles.coordinator.liveness import HOST_LOST_S
from engine.roles.coordinator.membership import words_of_missing
from engine.roles.coordinator.run_state import RunPhase, RunState
from engine.roles.coordinator.shutdown import Shutdown
from engine.roles.coordinator.totals import RunInfo
from engine.roles.events import Event, Noted, TimerFired
from engine.spec import Experiment

JOIN_S = 60.0
LOAD_S = 600.0
"""Time-out for joining if saved replay stores are loaded, which is at some 300 MB/s."""
PROGRESS_S = 0.25
SHOWN_ROLES = 100
"""Beyond this many roles, progress is shown less often, down to once a second."""


class CoordinatorRole:
    """Decides for the run. Its first event must be `TimerFired`, which starts its clock.

    Args:
        experiment: Stop rules.
        info: What the summary says beside the traces.
        addresses: All other roles.
        supervisors: They are told of the start, so that they report on the run's timeline.
        groups: The compute groups; one group by default.
        host_of: Host of each process and supervisor, if there are several.
    """

    def __init__(
        self,
        experiment: Experiment,
        info: RunInfo,
        addresses: tuple[str, ...],
        supervisors: tuple[str, ...] = (),
        groups: Groups | None = None,
        host_of: Mapping[str, str] | None = None,
    ) -> None:
        self.address = COORDINATOR
        self._host_of = host_of or {}
        self._experiment = experiment
        self._run = RunState(experiment, info, addresses, supervisors, groups)
        self._housekeeping = Housekeeping(experiment, self._run)
        self._shutdown = Shutdown(self._run, self._housekeeping)
        self._join_s = LOAD_S if info.resumed and info.resumed.replays else JOIN_S
        self._is_under_way = False
        self._shown_phase: RunPhase | None = None
        self._show_at_s = 0.0

    @property
    def _phase(self) -> RunPhase:
        return self._shutdown.phase or (
            RunPhase.RUNNING if self._is_under_way else RunPhase.JOINING
        )

    def handle(self, event: Event, now_s: float) -> list[Command]:
        """Handles one event. After the end of the run all events are ignored.

        | event | commands |
        |---|---|
        | Joined, Alive | StartRun once all roles and supervisors are there |
        | Start | WriteTrace: the run's time zero |
        | Report | WriteTrace; then the stop rules; Send(CheckpointDue) after a best evaluation |
        | StepLimitReached, StopRequested | begins the ending: Send(Stop) |
        | Stopped | the next step of the ending, at last EndRun |
        | RoleExited | WriteTrace; restarts an actor, gives up a group, or begins the ending |
        | HostGone | gives up the host's actors or groups, or begins the ending |
        | ProbeAnswered, Noted, TrackerFailed | WriteTrace |
        | TimerFired | ShowProgress, Wake, heartbeats, time limits and the stop rules |
        """
        if self._phase is RunPhase.ENDED:
            return []
        match event:
            case Joined():
                return self._joined(event, now_s)
            case Start():  # its own: the trace records its time zero
                return self._started(event.origin_ns * 1e-9)
            case Alive():
                told = self._run.liveness.hear(event, now_s)
                return [*told, *self._start_if_complete(now_s)]
            case Report():
                return self._reported(event, now_s)
            case StepLimitReached():
                return self._stop("env_steps", now_s)
            case Stopped():
                return self._stopped(event, now_s)
            case RoleExited():
                return self._exited(event, now_s)
            case StopRequested():
                if self._shutdown.phase is None:
                    self._run.verdict.interrupt()
                return self._stop(event.reason, now_s)
            case HostGone():
                return self._gone_host(event.host, now_s)
            case Noted(kind=kind, detail=detail):
                return [self._run.note(kind, detail, now_s)]
            case TrackerFailed(tool=tool, cause=cause):
                return [self._run.note("tracker-failed", f"{tool} {cause}", now_s)]
            case ProbeAnswered():
                return self._housekeeping.answered(event, now_s)
            case TimerFired():
                return self._tick(now_s)
        raise RuntimeError(f"the coordinator cannot handle {type(event).__name__}")

    def _joined(self, event: Joined, now_s: float) -> list[Command]:
        self._run.membership.join(event.address, event.host)
        detail = f"process {event.pid}, protocol {event.protocol}"
        commands: list[Command] = [self._run.note("joined", detail, now_s, event.address)]
        if event.protocol != PROTOCOL_VERSION:
            versions = f"protocol {event.protocol}, the coordinator protocol {PROTOCOL_VERSION}"
            self._run.verdict.fail(f"{event.address} on {event.host} speaks {versions}")
            return [*commands, *self._stop("version-mismatch", now_s)]
        if self._phase is RunPhase.RUNNING and event.address in self._run.liveness.absent:
            self._run.liveness.absent.remove(event.address)
            return [*commands, StartRun((event.address,), is_under_way=True)]
        return [*commands, *self._start_if_complete(now_s)]

    def _start_if_complete(self, now_s: float) -> list[Command]:
        is_complete = self._run.membership.is_complete and self._run.liveness.is_complete
        if self._phase is not RunPhase.JOINING or not is_complete:
            return []
        self._is_under_way = True
        begin_s = self._run.totals.before.elapsed_s
        self._run.liveness.start(begin_s)
        self._housekeeping.start(begin_s)
        everybody = (COORDINATOR, *self._run.addresses, *self._run.supervisors)
        return [StartRun(everybody, elapsed_s=begin_s)]

    def _started(self, origin_s: float) -> list[Command]:
        info, begin_s = self._run.info, self._run.totals.before.elapsed_s
        started = self._run.note("started", "", begin_s, origin_s=origin_s)
        if info.resumed is not None:
            words = f"version {info.resumed.version} of run {info.resumed.run_id}"
            return [self._run.note("resumed", words, begin_s), started]
        if info.warm_start is not None:
            return [self._run.note("warm-started", info.warm_start.words, begin_s), started]
        return [started]

    def _reported(self, event: Report, now_s: float) -> list[Command]:
        records = tuple(self._run.totals.add(record, now_s) for record in event.records)
        commands: list[Command] = [WriteTrace(records), *self._run.liveness.note(event.records)]
        self._shutdown.hear(event.address, now_s)
        if self._phase is RunPhase.RUNNING:
            commands += self._check_stop_rules(now_s)
        if self._phase is RunPhase.RUNNING and role_of(event.address) == "evaluator":
            living = self._run.membership.living - self._run.excused
            commands += self._housekeeping.evaluated(living, now_s)
        return commands

    def _check_stop_rules(self, now_s: float) -> list[Command]:
        if self._run.totals.reached_at_s is not None:
            return self._stop("return_threshold", now_s)
        limit = self._experiment.stop.env_steps
        if self._run.groups.count > 1 and limit and self._run.totals.consumed.total >= limit:
            return self._stop("env_steps", now_s)
        seconds = self._experiment.stop.seconds
        if seconds is not None and now_s >= seconds:
            return self._stop("seconds", now_s)
        if stalled := self._housekeeping.stalled(now_s):
            self._run.verdict.fail(stalled)
            return self._stop("stalled", now_s)
        return []

    def _stopped(self, event: Stopped, now_s: float) -> list[Command]:
        if event.address in self._run.liveness.absent:
            return []  # it was given up, so its buffer counts its work; count it only once
        self._run.membership.say_last(event.address, event.counters)
        if event.error:
            self._run.verdict.fail(f"{event.address}: {event.error}")
        return [*self._run.settle(), *self._shutdown.advance(now_s)]

    def _exited(self, event: RoleExited, now_s: float) -> list[Command]:
        commands: list[Command] = [self._run.note("exited", event.cause, now_s, event.process)]
        roles = self._run.groups.roles_in(event.process)
        is_running = self._phase is RunPhase.RUNNING
        is_alone = roles == [event.process]
        may_restart = self._run.liveness.may_restart(event.process, event.host)
        if (
            is_running
            and is_alone
            and may_restart
            and not self._run.liveness.raises_again(event.process, event.log_tail)
        ):
            self._run.totals.restarts += 1
            again = self._run.note("restarted", event.cause, now_s, event.process)
            return [*commands, again, *self._run.liveness.restart(event.process, event.host)]
        is_given_up = not is_running or self._run.liveness.is_lost(event.host)
        if is_given_up and set(roles) <= self._run.excused:
            return commands
        lost = self._run.groups.lose(roles) if is_running else []
        if lost:
            cause = f"{event.process} on {event.host} {event.cause}"
            return [*commands, *self._lost_groups(lost, roles, cause, now_s)]
        commands += self._shutdown.give_up(roles)
        if self._run.membership.have_stopped(roles) or self._shutdown.can_spare(roles):
            return [*commands, *self._shutdown.advance(now_s)]
        tail = "".join(f"\n    {line}" for line in event.log_tail)
        self._run.verdict.fail(f"{event.process} on {event.host} {event.cause}{tail}")
        return [*commands, *self._stop("role-exited", now_s), *self._shutdown.advance(now_s)]

    def _lost_groups(
        self, groups: list[int], roles: list[str], cause: str, now_s: float
    ) -> list[Command]:
        """The other groups continue. A buffer that is alive knows what actors that died with
        their group had sent."""
        actors = {role for role in roles if role_of(role) == "actor"} - self._run.liveness.absent
        commands = [told for actor in sorted(actors) for told in self._run.liveness.lose(actor)]
        for group in groups:
            detail = f"{cause}; the other groups continue"
            commands.append(self._run.note("group-lost", detail, now_s, f"learner-{group}"))
            commands += self._run.groups.part_with(group, self._run.totals, now_s)
        return [*commands, *self._run.settle()]

    def _tick(self, now_s: float) -> list[Command]:
        commands: list[Command] = [*self._show(now_s), Wake(PROGRESS_S)]
        commands += self._run.liveness.beat(now_s)
        if self._phase is RunPhase.RUNNING:
            for host in self._run.liveness.silent_hosts(now_s):
                commands += self._lost_host(host, f"no message for {HOST_LOST_S:.0f} s", now_s)
            living = self._run.membership.living - self._run.excused
            commands += self._housekeeping.tick(living, now_s)
            return [*commands, *self._check_stop_rules(now_s)]
        if self._shutdown.phase is not None:
            return [*commands, *self._shutdown.tick(now_s)]
        if now_s < self._join_s:
            return commands
        self._run.verdict.fail(self._words_of_missing())
        return [*commands, *self._stop("join-deadline", now_s)]

    def _words_of_missing(self) -> str:
        """The error for roles that did not join, with their hosts."""
        everybody = (COORDINATOR, *self._run.addresses, *self._run.supervisors)
        process_of, membership = self._run.groups.process_of, self._run.membership
        placed = {name: self._host_of.get(process_of(name), "") for name in everybody}
        return words_of_missing(
            membership.missing, self._run.liveness.unheard, membership.joined, placed, self._join_s
        )

    def _gone_host(self, host: str, now_s: float) -> list[Command]:
        was_there = self._run.liveness.give_up(host)
        if self._phase is RunPhase.JOINING or (self._phase is RunPhase.RUNNING and was_there):
            return self._lost_host(host, "the command lost contact with its supervisor", now_s)
        return []

    def _lost_host(self, host: str, why: str, now_s: float) -> list[Command]:
        """Continues without a lost host if it ran only actors and others are left."""
        there = self._run.membership.on_host(host)
        detail = f"{why}; it ran {', '.join(sorted(there)) or 'nothing yet'}"
        commands: list[Command] = [self._run.note("host-lost", detail, now_s, host)]
        away = self._run.membership.gone | self._run.liveness.absent
        others = set(self._run.addresses) - there - away
        has_actors = any(role_of(address) == "actor" for address in others)
        is_running = self._phase is RunPhase.RUNNING
        is_spare = (
            is_running and has_actors and all(role_of(address) == "actor" for address in there)
        )
        if is_spare:
            for actor in sorted(there - self._run.liveness.absent):
                commands += self._run.liveness.lose(actor)
            return commands
        lost = self._run.groups.lose(sorted(there)) if is_running else []
        if lost:
            cause = f"host {host} is lost"
            return [*commands, *self._lost_groups(lost, sorted(there), cause, now_s)]
        commands += self._shutdown.give_up(there)
        self._run.verdict.fail(f"host {host} is lost: {detail}")
        return [*commands, *self._stop("host-lost", now_s), *self._shutdown.advance(now_s)]

    def _stop(self, reason: str, now_s: float) -> list[Command]:
        return [] if self._shutdown.phase else self._shutdown.begin(reason, now_s)

    def _show(self, now_s: float) -> list[Command]:
        """Shows progress if it is due: at once after a change of phase; otherwise less often with
        more roles, since each is shown."""
        if self._phase is self._shown_phase and now_s < self._show_at_s:
            return []
        crowd = len(self._run.addresses) / SHOWN_ROLES
        self._shown_phase = self._phase
        self._show_at_s = now_s + PROGRESS_S * min(max(crowd, 1.0), 4.0) - PROGRESS_S / 2
        return [ShowProgress(self._run.progress(self._phase, now_s))]
