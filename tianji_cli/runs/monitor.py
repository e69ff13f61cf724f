"""Follows a run that was launched, until all supervisors are done with it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from engine.blame import ERROR
from engine.control_protocol import (
    Detach,
    Detached,
    Failed,
    Finished,
    KillRun,
    Shown,
    Spawned,
    StopRun,
    Stuck,
    survived,
)
from engine.errors import CleanupError
from engine.messages import COORDINATOR, HostGone
from engine.progress import Progress
from tianji_cli.interrupts import Interrupts
from tianji_cli.runs.channels import SupervisorChannel, SupervisorChannels

END_S = 15.0
"""Time-out for a supervisor to end, once it was told to or is alone."""


@dataclass
class RunOutcome:
    """The events of a run, beside its summary.

    Attributes:
        head: The coordinator's host; empty if it is not known.
        failures: In order, with those that the run survived.
        pids: Of all started role processes, by address.
        lost: Hosts whose supervisor ended without a final report, with the cause as far as known.
        silent: Hosts whose supervisor sent no final report in time and was told to end.
        is_detached: The run continues without this command.
        unclean: Possible leftovers on a host.
    """

    failures: list[Failed] = field(default_factory=list)
    head: str = ""
    pids: dict[str, int] = field(default_factory=dict)
    lost: dict[str, str] = field(default_factory=dict)
    silent: set[str] = field(default_factory=set)
    is_detached: bool = False
    unclean: CleanupError | None = None


class RunMonitor:
    """Follows a run that was launched, until all supervisors are done with it."""

    def __init__(
        self,
        lines: SupervisorChannels,
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
        self._outcome = RunOutcome(head=head)
        self._done: set[str] = set()
        self._detached: set[str] = set()
        self._num_heard = 0
        self._deadline_s: float | None = None
        self._is_killing = False

    def watch(self) -> RunOutcome:
        while not self._is_complete():
            for line, report in self._lines.reports(lambda: self._deadline_s):
                if line is not None:
                    self._take(line, report)
                self._obey()
                if self._is_complete():
                    return self._outcome
            if self._is_killing or self._deadline_s is None:
                break
            self._kill("did not end in time and are killed now")
        settled = self._done | self._detached | set(self._outcome.lost)
        self._outcome.silent = set(self._lines.by_host) - settled
        return self._outcome

    def _is_complete(self) -> bool:
        settled = self._done | self._detached | set(self._outcome.lost)
        is_complete = set(self._lines.by_host) <= settled
        self._outcome.is_detached = is_complete and bool(self._detached)
        return is_complete

    def _take(self, line: SupervisorChannel, report: object) -> None:
        match report:
            case Spawned():
                self._outcome.pids[report.address] = report.pid
                survived(self._outcome.failures, report.address)
            case Shown(progress=progress):
                self._show(progress)
                self._leave_if_started(progress)
            case Failed():
                self._outcome.failures.append(report)
                self._note(_words_of_end(report, line.host))
                if report.address == COORDINATOR:
                    self._kill("are killed, because the coordinator is gone")
            case Stuck():
                self._note(_words_of(report, line.host))
            case Finished():
                self._done.add(line.host)
                if line.host == self._head:
                    self._deadline_s = time.monotonic() + END_S
            case Detached():
                self._detached.add(line.host)
            case None if line.host not in self._done | self._detached:
                self._lost(line)

    def _lost(self, line: SupervisorChannel) -> None:
        error = line.died(line.ended_by)
        self._outcome.lost[line.host] = error.what
        self._note(f"{line.host} is lost: {error.what}")
        if line.host == self._head:
            self._kill("are killed, because the coordinator's host is lost")
        else:
            self._lines.by_host[self._head].tell(HostGone(host=line.host))

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
        """The user's Ctrl-C: the first stops gracefully, the second kills."""
        if self._interrupts.count <= self._num_heard:
            return
        self._num_heard = self._interrupts.count
        if self._num_heard == 1:
            self._note("stopping; press Ctrl-C again to kill the run")
            self._lines.by_host[self._head].tell(StopRun())
        else:
            self._note("killing the run")
            self._kill("are killed")


def _words_of_end(failed: Failed, host: str) -> str:
    """The message about a process that ended unexpectedly; what it said last can name another."""
    errors = (line.removeprefix(ERROR) for line in failed.log_tail if line.startswith(ERROR))
    reason = next(errors, "")
    return f"{failed.address} on {host} {failed.cause}{reason and f': {reason}'}"


def _words_of(stuck: Stuck, host: str) -> str:
    """The message about a stuck process."""
    stack = "".join(f"\n    {line}" for line in stuck.stack)
    silence = f"{stuck.address} on {host} has not answered for {stuck.silent_s:.0f} s"
    return f"{silence}; {stuck.state}{stack}"
