"""Runs a plan on hosts that are ready: prepare, launch, watch, end. No gradients, no terminal here.

The supervisors own a run's processes, not this process. Whatever happens here, each supervisor sees
its standard input end or go silent, and ends its part of the run.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field

import engine
from engine.control_protocol import (
    Failed,
    Hello,
    HostFacts,
    Launch,
    Ping,
    Pong,
    Prepare,
    Prepared,
    Refused,
)
from engine.errors import DeadlineError, TianJiError, VersionMismatchError
from engine.messages import COORDINATOR, TrackerFailed
from engine.progress import Progress
from engine.trace.warm_start import SavedTensor, TakenWeights
from tianji_cli.interrupts import Interrupts
from tianji_cli.planning.plan import Plan
from tianji_cli.planning.resources import HostResources, cores_needed, cores_wanted
from tianji_cli.planning.wiring import most_connections, servers_on
from tianji_cli.provisioning.probe import minor_of
from tianji_cli.provisioning.provision import ReadyHost
from tianji_cli.runs.channels import BEAT_S, SupervisorChannel, SupervisorChannels
from tianji_cli.runs.monitor import END_S, RunMonitor, RunOutcome
from tianji_cli.runs.parallel import in_parallel
from tianji_cli.storage.clock_sync import NUM_PINGS, ClockAnswer, ClockOffset, estimate, relative_to
from tianji_cli.storage.deployment import HostPart

PREPARE_S = 120.0
CLOCK_S = 20.0
CLOSE_S = 5.0
LEASE_S = 15.0
"""A supervisor behind SSH that has not heard from us for this long ends its part of the run."""


@dataclass(frozen=True)
class HostReady:
    """The answer of a host to `Prepare`."""

    facts: HostFacts
    endpoints: tuple[str, ...]
    resources: HostResources
    notes: tuple[str, ...] = ()
    public_keys: dict[str, str] = field(default_factory=dict)
    taken: TakenWeights | None = None


class Controller:
    """The link to a run's supervisors. Call `prepare`, `measure_clocks`, then `run`, and `close`.

    Args:
        plan: The plan.
        ready_hosts: All hosts of the plan, ready.
        interrupts: The user's Ctrl-C.
    """

    def __init__(
        self, plan: Plan, ready_hosts: Mapping[str, ReadyHost], interrupts: Interrupts
    ) -> None:
        self._plan = plan
        self._ready_hosts = ready_hosts
        self._interrupts = interrupts
        self._beats = {
            host for host, ready_host in ready_hosts.items() if ready_host.node.is_remote
        }
        connections = {host: ready_host.connection for host, ready_host in ready_hosts.items()}
        self._lines = SupervisorChannels(connections, interrupts, self._beats)
        self._head = plan.host_of[COORDINATOR]

    def prepare(
        self, run_id: str, weights: Mapping[str, SavedTensor] | None = None
    ) -> dict[str, HostReady]:
        """Checks the experiment on all hosts, before any role starts.

        Args:
            run_id: The run.
            weights: Those of a former run that it is to start with, if it is.

        Raises:
            TianJiError: As a host reported it; VersionMismatchError; DeadlineError if one does not
                answer.
            KeyboardInterrupt: The user interrupted.
        """
        for host in self._ready_hosts:
            self._lines.by_host[host].tell(self._prepare(host, run_id, weights))
        ready: dict[str, HostReady] = {}
        deadline_s = time.monotonic() + PREPARE_S
        for line, report in self._lines.reports(lambda: deadline_s):
            self._check_alive(line, report)
            match report:
                case Hello():
                    assert line is not None
                    check_versions(self._ready_hosts[line.host].part, report)
                case Prepared():
                    assert line is not None
                    ready[line.host] = _ready(report)
                case Refused():
                    assert line is not None
                    raise refusal(report, line.host if line.host in self._beats else None)
            if len(ready) == len(self._ready_hosts):
                return ready
        late = sorted(set(self._ready_hosts) - set(ready))
        raise DeadlineError(f"not ready within {PREPARE_S:.0f} s", where=", ".join(late))

    def _prepare(
        self, host: str, run_id: str, weights: Mapping[str, SavedTensor] | None
    ) -> Prepare:
        spec = self._ready_hosts[host].part.host
        here = [item for item in self._plan.placements if item.host == host]
        return Prepare(
            experiment=self._plan.experiment,
            cut=self._plan.graph.cut,
            run_id=run_id,
            run_dir=self._ready_hosts[host].part.run_dir,
            module_directories=self._ready_hosts[host].module_directories,
            host=host,
            attempt=self._ready_hosts[host].part.attempt,
            address=self._plan.supervisors[host],
            num_endpoints=len(servers_on(self._plan, host)),
            processes=tuple(item.process for item in here),
            num_connections=most_connections(self._plan, host),
            listen=self._plan.listen_of(spec),
            env=dict(spec.env),
            lease_s=LEASE_S if host in self._beats else None,
            gpus=spec.gpus,
            max_cores=spec.cores,
            cores_needed=cores_needed(here, cores_wanted(self._plan)) if spec.pin else None,
            init_weights=None if weights is None else dict(weights),
        )

    def measure_clocks(self) -> dict[str, ClockOffset]:
        """Each host's monotonic clock minus that of the coordinator's host.

        Raises:
            DeadlineError: A host does not answer.
        """
        answers: dict[str, list[ClockAnswer]] = {host: [] for host in self._ready_hosts}
        sent_ns: dict[str, int] = {}

        def ask(line: SupervisorChannel) -> None:
            sent_ns[line.host] = time.monotonic_ns()
            line.tell(Ping(number=len(answers[line.host])))

        for host in self._ready_hosts:
            ask(self._lines.by_host[host])
        deadline_s = time.monotonic() + CLOCK_S
        for line, report in self._lines.reports(lambda: deadline_s):
            heard_ns = time.monotonic_ns()
            self._check_alive(line, report)
            if isinstance(report, Pong):
                assert line is not None
                known = answers[line.host]
                known.append(ClockAnswer(sent_ns[line.host], report.monotonic_ns, heard_ns))
                if len(known) < NUM_PINGS:
                    ask(line)
            if all(len(known) >= NUM_PINGS for known in answers.values()):
                offsets = {host: estimate(known) for host, known in answers.items()}
                return relative_to(self._head, offsets)
        late = [host for host, known in answers.items() if len(known) < NUM_PINGS]
        raise DeadlineError("the clock could not be read", where=", ".join(late))

    def _check_alive(self, line: SupervisorChannel | None, report: object) -> None:
        """Before the launch, any end of a supervisor is an error."""
        if self._interrupts.count:
            raise KeyboardInterrupt
        if line is not None and report is None:
            raise line.died(line.ended_by)
        if line is not None and isinstance(report, Failed):
            raise line.died(report.cause + "".join(f"\n    {text}" for text in report.log_tail))

    def meanwhile(self, action: Callable[[], None]) -> None:
        """Runs a long action, and sends heartbeats to supervisors in the meantime.

        Raises:
            TianJiError: As the action does.
        """
        with ThreadPoolExecutor(max_workers=1) as pool:
            doing = pool.submit(action)
            while not wait([doing], BEAT_S).done:
                self._lines.beat(time.monotonic())
        doing.result()

    def run(
        self,
        launches: Mapping[str, Launch],
        show: Callable[[Progress], None],
        note: Callable[[str], None],
        *,
        detaches: bool = False,
    ) -> RunOutcome:
        """Launches the roles and watches until none is left, or until the run is detached.

        Args:
            launches: From `tianji_cli.planning.plan.wire`, by host.
            show: Called with each snapshot of progress.
            note: Called with messages for the user.
            detaches: Return once training has started.
        """
        watcher = RunMonitor(self._lines, self._head, self._interrupts, show, note, detaches)
        for host, launch in launches.items():
            self._lines.by_host[host].tell(launch)  # one that is gone also closes its channel
        return watcher.watch()

    def tell_coordinator(self, notice: TrackerFailed) -> None:
        """Passes on what this command knows of the run, for its history."""
        self._lines.by_host[self._head].tell(notice)

    def close(self, gave_up: Collection[str] = ()) -> list[str]:
        """Ends the supervisors, and with them whatever is left of the run.

        Args:
            gave_up: Hosts that timed out already, and are not waited for again.

        Returns:
            Hosts whose supervisor has not ended in time.
        """
        self._lines.close()
        for line in self._lines.by_host.values():
            line.connection.close_input()
        end_s = time.monotonic() + END_S
        late = [
            host
            for host, line in self._lines.by_host.items()
            if not line.connection.wait(
                0.0 if host in gave_up else max(0.0, end_s - time.monotonic())
            )
        ]
        self._close_connections()
        return late

    def let_go(self) -> None:
        """Disconnects from a detached run."""
        self._lines.close()
        self._close_connections()

    def _close_connections(self) -> None:
        """Closes a channel; if that times out, it ends with its host's connection."""
        closing = {host: line.connection.close for host, line in self._lines.by_host.items()}
        in_parallel(closing, CLOSE_S)


def _ready(report: Prepared) -> HostReady:
    resources = HostResources(
        devices=report.devices, cores=report.cores, idle_cores=report.idle_cores
    )
    return HostReady(
        report.facts,
        tuple(report.endpoints),
        resources,
        report.notes,
        report.public_keys,
        report.taken,
    )


def check_versions(part: HostPart, hello: Hello) -> None:
    """Raises VersionMismatchError unless both sides have the same protocol."""
    host = part.host.name
    here = platform.python_version()
    if hello.protocol != engine.PROTOCOL_VERSION:
        raise VersionMismatchError(
            f"it runs TianJi {hello.tianji} (protocol {hello.protocol}), here runs"
            f" {engine.__version__} (protocol {engine.PROTOCOL_VERSION})",
            where=host,
            fix=f"its copy of the program was changed; remove it: ssh {host} rm -rf {part.source}",
        )
    if minor_of(hello.python) != minor_of(here):
        raise VersionMismatchError(
            f"its supervisor runs Python {hello.python}, here runs {here}",
            where=host,
            fix=f"give a Python {minor_of(here)} with `python:` in the inventory",
        )


def refusal(report: Refused, host: str | None = None) -> TianJiError:
    """The error that a host reported, with its name if it is another machine."""
    what = report.what if host is None else f"{host}: {report.what}"
    error = TianJiError(what, where=report.where, fix=report.fix)
    for kind in TianJiError.__subclasses__():
        if kind.exit_code == report.exit_code and kind.__name__ != "WireError":
            error = kind(what, where=report.where, fix=report.fix)
    return error
