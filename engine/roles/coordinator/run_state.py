"""What a coordinator knows of its run: who takes part, what they reported, how it will end.

Pure. The parts of the coordinator share one `RunState`; each fact has one owner in it.
"""

from __future__ import annotations

from enum import Enum

from engine.graph.cut import single_cut
from engine.messages import COORDINATOR, Stop
from engine.progress import Progress, RoleState
from engine.roles.commands import Command, WriteTrace
from engine.roles.coordinator.groups import Groups
from engine.roles.coordinator.liveness import Liveness
from engine.roles.coordinator.membership import Membership
from engine.roles.coordinator.totals import RunInfo, RunTotals
from engine.spec import Experiment
from engine.trace.records import Event
from engine.trace.summary import RunStatus


class RunPhase(Enum):
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


class RunState:
    """The state of one run.

    Args:
        experiment: Stop rules.
        info: What the summary says beside the traces.
        addresses: All roles but the coordinator.
        supervisors: Of all hosts.
        groups: The compute groups; one group by default.
    """

    def __init__(
        self,
        experiment: Experiment,
        info: RunInfo,
        addresses: tuple[str, ...],
        supervisors: tuple[str, ...] = (),
        groups: Groups | None = None,
    ) -> None:
        self.experiment, self.info = experiment, info
        self.addresses, self.supervisors = addresses, supervisors
        self.groups = groups or Groups(single_cut(experiment), {})
        self.membership = Membership(addresses)
        self.liveness = Liveness(addresses, supervisors, experiment.restarts, self.groups.count)
        self.totals = RunTotals(experiment, info.resumed, is_joint=self.groups.is_joint)
        self.verdict = RunVerdict()

    @property
    def excused(self) -> set[str]:
        """Roles that are gone without ending the run: no report is expected of them."""
        return self.groups.dead | self.liveness.absent

    def settle(self) -> list[Command]:
        """Stops the buffers of lost groups whose other roles have sent their final report."""
        return self.groups.settle(self.membership.last_words, self.totals, self.liveness.absent)

    def last_stop(self, buffer: str) -> Stop:
        """The order to a buffer to count what is left, with how much it must expect."""
        return self.groups.last_stop(buffer, self.membership.last_words, self.totals)

    def note(
        self,
        kind: str,
        detail: str,
        now_s: float,
        role: str = COORDINATOR,
        origin_s: float | None = None,
    ) -> Command:
        """An event for the trace.

        Args:
            kind: What happened.
            detail: More about it, for the user.
            now_s: On the run's timeline.
            role: A role, or the process that runs it.
            origin_s: Time zero of the run, for the event `started`.
        """
        host = self.membership.host_of(self.groups.roles_in(role)[0])
        row = Event(t_s=now_s, kind=kind, host=host, role=role, detail=detail, origin_s=origin_s)
        return WriteTrace((row,))

    def progress(self, phase: RunPhase, now_s: float) -> Progress:
        """A snapshot for the user: rates, lag, stop rules, the state of each role."""
        totals, stop = self.totals, self.experiment.stop
        recent, ledger = totals.recent_staleness, totals.ledger
        return Progress(
            phase=str(phase.value),
            t_s=now_s,
            env_steps_collected=totals.collected.total,
            env_steps_consumed=totals.consumed.total,
            env_steps_dropped=ledger.dropped if ledger else 0,
            samples_trained=totals.trained.total,
            collect_per_s=totals.collected.recent_per_s(),
            consume_per_s=totals.consumed.recent_per_s(),
            trained_per_s=totals.trained.recent_per_s(),
            balance=totals.balance,
            lag_mean=sum(row.lag_mean for row in recent) / len(recent) if recent else None,
            lag_max=max(row.lag_max for row in recent) if recent else None,
            weights_version=totals.weights_version,
            episodes=totals.num_episodes,
            return_mean=totals.returns.mean,
            return_of=stop.return_of,
            agent_returns=totals.returns.agents,
            policy_returns=totals.returns.policies,
            threshold=stop.return_threshold,
            env_steps_limit=stop.env_steps,
            seconds_limit=stop.seconds,
            roles=self._role_states(),
        )

    def _role_states(self) -> dict[str, RoleState]:
        away = self.membership.gone | self.excused
        return {address: self._state_of(address, address in away) for address in self.addresses}

    def _state_of(self, address: str, is_away: bool) -> RoleState:
        state = "running" if self.membership.host_of(address) else "starting"
        if address in self.membership.last_words:
            state = "stopped"
        elif is_away:
            state = "gone"
        return RoleState(state, self.totals.cores.get(self.groups.process_of(address)))
