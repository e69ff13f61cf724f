"""Runs a plan on hosts that are ready: prepare, launch, watch, end. No gradients, no terminal here.

A run's processes live in the supervisors' hands, not in this one's. Whatever happens here, each
supervisor sees its standard input end or fall silent, and ends its part of the run.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import engine
from engine.errors import CleanupError, DeadlineError, TianJiError, VersionMismatchError
from engine.messages import COORDINATOR
from engine.progress import Progress
from engine.runtime.launch import (
    Detach,
    Detached,
    Failed,
    Finished,
    Hello,
    HostFacts,
    KillRun,
    Launch,
    Ping,
    Pong,
    Prepare,
    Prepared,
    Refused,
    Shown,
    Spawned,
    StopRun,
)
from tianji_cli.clocks import NUM_PINGS, Answer, ClockOffset, estimate, relative_to
from tianji_cli.interrupts import Interrupts
from tianji_cli.lines import Line, Lines
from tianji_cli.plan import Plan, servers_on
from tianji_cli.probe import minor_of
from tianji_cli.provision import Site

PREPARE_S = 120.0
CLOCK_S = 20.0
DETACH_S = 20.0
END_S = 15.0
"""How long a supervisor may take to end, once it has been told or is alone."""
LEASE_S = 15.0
"""A supervisor behind SSH that has not heard from us for so long ends its part of the run."""


@dataclass
class Outcome:
    """What happened to a run, beside its summary.

    Attributes:
        failures: In the order in which they happened.
        pids: Of all role processes that were started, by address.
        lost: Hosts whose supervisor ended without a last word, with what is known of it.
        is_detached: The run goes on without us.
        unclean: What may be left of it on a host.
    """

    failures: list[Failed] = field(default_factory=list)
    pids: dict[str, int] = field(default_factory=dict)
    lost: dict[str, str] = field(default_factory=dict)
    is_detached: bool = False
    unclean: CleanupError | None = None


@dataclass(frozen=True)
class HostReady:
    """What a host has answered to `Prepare`."""

    facts: HostFacts
    endpoints: tuple[str, ...]


class Controller:
    """Talks to the supervisors of a run. Use `prepare`, `measure_clocks`, then `run`, and `close`.

    Args:
        plan: What to run.
        sites: All hosts of the plan, ready.
        interrupts: The user's Ctrl-C.
    """

    def __init__(self, plan: Plan, sites: Mapping[str, Site], interrupts: Interrupts) -> None:
        self._plan = plan
        self._sites = sites
        self._interrupts = interrupts
        self._beats = {host for host, site in sites.items() if site.node.is_remote}
        connections = {host: site.connection for host, site in sites.items()}
        self._lines = Lines(connections, interrupts, self._beats)
        self._head = plan.host_of[COORDINATOR]

    def prepare(self, run_id: str) -> dict[str, HostReady]:
        """Checks the experiment on all hosts; nothing of the run has started yet.

        Raises:
            TianJiError: As a host reported it; VersionMismatchError; DeadlineError if one does not
                answer.
            KeyboardInterrupt: The user does not want it any more.
        """
        for host in self._sites:
            self._lines.by_host[host].tell(self._prepare(host, run_id))
        ready: dict[str, HostReady] = {}
        for line, report in self._lines.reports(time.monotonic() + PREPARE_S):
            self._check_alive(line, report)
            match report:
                case Hello():
                    assert line is not None
                    check_versions(line.host, report)
                case Prepared():
                    assert line is not None
                    ready[line.host] = HostReady(report.facts, tuple(report.endpoints))
                case Refused():
                    raise refusal(report)
            if len(ready) == len(self._sites):
                return ready
        late = sorted(set(self._sites) - set(ready))
        raise DeadlineError(f"not ready within {PREPARE_S:.0f} s", where=", ".join(late))

    def _prepare(self, host: str, run_id: str) -> Prepare:
        spec = self._sites[host].part.host
        env = dict(spec.env)
        if spec.gpus is not None:
            env["CUDA_VISIBLE_DEVICES"] = ",".join(str(number) for number in spec.gpus)
        return Prepare(
            experiment=self._plan.experiment,
            cut=self._plan.graph.cut,
            run_id=run_id,
            host=host,
            num_endpoints=len(servers_on(self._plan, host)),
            listen=self._plan.listen_of(spec),
            env=env,
            lease_s=LEASE_S if host in self._beats else None,
        )

    def measure_clocks(self) -> dict[str, ClockOffset]:
        """Each host's monotonic clock minus that of the coordinator's host.

        Raises:
            DeadlineError: A host does not answer.
        """
        answers: dict[str, list[Answer]] = {host: [] for host in self._sites}
        sent_ns: dict[str, int] = {}

        def ask(line: Line) -> None:
            sent_ns[line.host] = time.monotonic_ns()
            line.tell(Ping(number=len(answers[line.host])))

        for host in self._sites:
            ask(self._lines.by_host[host])
        for line, report in self._lines.reports(time.monotonic() + CLOCK_S):
            heard_ns = time.monotonic_ns()
            self._check_alive(line, report)
            if isinstance(report, Pong):
                assert line is not None
                known = answers[line.host]
                known.append(Answer(sent_ns[line.host], report.monotonic_ns, heard_ns))
                if len(known) < NUM_PINGS:
                    ask(line)
            if all(len(known) >= NUM_PINGS for known in answers.values()):
                offsets = {host: estimate(known) for host, known in answers.items()}
                return relative_to(self._head, offsets)
        late = [host for host, known in answers.items() if len(known) < NUM_PINGS]
        raise DeadlineError("the clock could not be asked", where=", ".join(late))

    def _check_alive(self, line: Line | None, report: object) -> None:
        """While nothing runs yet, any end is an error."""
        if self._interrupts.count:
            raise KeyboardInterrupt
        if line is not None and report is None:
            raise line.died("its output ended")
        if line is not None and isinstance(report, Failed):
            raise line.died(report.cause + "".join(f"\n    {text}" for text in report.log_tail))

    def run(
        self,
        launches: Mapping[str, Launch],
        show: Callable[[Progress], None],
        note: Callable[[str], None],
        *,
        detaches: bool = False,
    ) -> Outcome:
        """Launches the roles and watches until none is left, or until the run is detached.

        Args:
            launches: From `tianji_cli.plan.wire`, by host.
            show: Called with each snapshot of progress.
            note: Called with words for the user.
            detaches: Let go as soon as training has started.
        """
        watcher = _Watcher(self._lines, self._head, self._interrupts, show, note, detaches)
        for host, launch in launches.items():
            if not self._lines.by_host[host].tell(launch):
                raise self._lines.by_host[host].died("it no longer listens")
        return watcher.watch()

    def close(self) -> list[str]:
        """Ends the supervisors, and with them whatever is left of the run.

        Returns:
            Hosts whose supervisor has not ended in time.
        """
        self._lines.close()
        for line in self._lines.by_host.values():
            line.connection.close_input()
        end_s = time.monotonic() + END_S
        return [
            host
            for host, line in self._lines.by_host.items()
            if not line.connection.wait(max(0.0, end_s - time.monotonic()))
        ]

    def let_go(self) -> None:
        """Leaves a detached run alone."""
        self._lines.close()


class _Watcher:
    """Follows a run that was launched, until all supervisors are done with it."""

    def __init__(
        self,
        lines: Lines,
        head: str,
        interrupts: Interrupts,
        show: Callable[[Progress], None],
        note: Callable[[str], None],
        detaches: bool,
    ) -> None:
        self._lines = lines
        self._head = head
        self._interrupts = interrupts
        self._show = show
        self._note = note
        self._detaches = detaches
        self._is_leaving = False
        self._outcome = Outcome()
        self._done: set[str] = set()
        self._detached: set[str] = set()
        self._num_heard = 0
        self._deadline_s: float | None = None
        self._is_killing = False

    def watch(self) -> Outcome:
        while not self._is_complete():
            for line, report in self._lines.reports(self._deadline_s):
                if line is not None:
                    self._take(line, report)
                self._obey()
                if self._is_complete():
                    return self._outcome
            if self._is_killing or self._deadline_s is None:
                break
            self._kill("did not end in time, so they are ended now")
        return self._outcome

    def _is_complete(self) -> bool:
        settled = self._done | self._detached | set(self._outcome.lost)
        is_complete = set(self._lines.by_host) <= settled
        self._outcome.is_detached = is_complete and bool(self._detached)
        return is_complete

    def _take(self, line: Line, report: object) -> None:
        match report:
            case Spawned():
                self._outcome.pids[report.address] = report.pid
            case Shown(progress=progress):
                self._show(progress)
                self._leave_if_started(progress)
            case Failed():
                self._outcome.failures.append(report)
                self._note(f"{report.address} on {line.host} {report.cause}")
                if report.address == COORDINATOR:
                    self._kill("are ended, as the coordinator is gone")
            case Finished():
                self._done.add(line.host)
                if line.host == self._head:
                    self._deadline_s = time.monotonic() + END_S
            case Detached():
                self._detached.add(line.host)
            case None if line.host not in self._done | self._detached:
                self._lost(line)

    def _lost(self, line: Line) -> None:
        error = line.died("its output ended")
        self._outcome.lost[line.host] = error.what
        self._note(f"{line.host} is lost: {error.what}")
        if line.host == self._head:
            self._kill("are ended, as the coordinator's host is lost")

    def _leave_if_started(self, progress: Progress) -> None:
        if self._detaches and not self._is_leaving and progress.phase == "running":
            self._is_leaving = True
            for line in self._lines.by_host.values():
                line.tell(Detach())

    def _kill(self, why: str) -> None:
        if self._is_killing:
            return
        self._is_killing = True
        left = sorted(set(self._lines.by_host) - self._done - set(self._outcome.lost))
        if left:
            self._note(f"{', '.join(left)} {why}")
        for host in left:
            self._lines.by_host[host].tell(KillRun())
        self._deadline_s = time.monotonic() + END_S

    def _obey(self) -> None:
        """The user's Ctrl-C: once in good order, twice at once."""
        if self._interrupts.count <= self._num_heard:
            return
        self._num_heard = self._interrupts.count
        if self._num_heard == 1:
            self._note("stopping; Ctrl-C once more ends it at once")
            self._lines.by_host[self._head].tell(StopRun())
        else:
            self._note("ending at once")
            self._kill("are ended")


def check_versions(host: str, hello: Hello) -> None:
    """Raises VersionMismatchError unless we understand each other."""
    here = platform.python_version()
    if hello.protocol != engine.PROTOCOL_VERSION:
        raise VersionMismatchError(
            f"it runs TianJi {hello.tianji} (protocol {hello.protocol}), here runs"
            f" {engine.__version__} (protocol {engine.PROTOCOL_VERSION})",
            where=host,
            fix=f"pip install tianji-rl=={engine.__version__} there",
        )
    if minor_of(hello.python) != minor_of(here):
        raise VersionMismatchError(
            f"its supervisor runs Python {hello.python}, here runs {here}",
            where=host,
            fix=f"give a Python {minor_of(here)} with `python:` in the inventory",
        )


def refusal(report: Refused) -> TianJiError:
    """The error that a host reported, as it was."""
    error = TianJiError(report.what, where=report.where, fix=report.fix)
    for kind in TianJiError.__subclasses__():
        if kind.exit_code == report.exit_code and kind.__name__ != "WireError":
            error = kind(report.what, where=report.where, fix=report.fix)
    return error
