"""The node supervisor: one for each host; starts, watches, restarts and ends the roles there.

It takes instructions on standard input and reports on standard output, so it works the same under
a local parent and behind SSH. Only the supervisor beside the coordinator requests the end of the
whole run; the others end their host's part. This happens, independent of other hosts, as soon as

- standard input ends or stays silent for too long (the command is gone, or cut off),
- the coordinator stays silent for too long (this host is cut off, or the other one is dead), or
- SIGTERM arrives: from `tianji down` for a detached run, which has no standard input any more, or
  from a cluster manager that ends the job (`engine.host.end_signals`).

It does not import torch; the forkserver does.
"""

from __future__ import annotations

import select
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from engine.clock import TimerQueue
from engine.control_protocol import (
    Beat,
    Detach,
    Detached,
    Exited,
    Failed,
    Finished,
    FromForkserver,
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
    ToSupervisor,
    survived,
)
from engine.errors import of_machine
from engine.files import cap_logs
from engine.host.descriptors import raise_limit
from engine.host.process import log_tail, name_process
from engine.messages import (
    COORDINATOR,
    Alive,
    AnyMessage,
    Exit,
    HostGone,
    ProgressShown,
    Report,
    Restart,
    RoleExited,
    StackWanted,
    Start,
    StopRequested,
    TrackerFailed,
)
from engine.roles.coordinator.liveness import BEAT_S, LEASE_S
from engine.supervision.controller_link import ControllerLink, hello
from engine.supervision.coordinator_link import CoordinatorLink
from engine.supervision.host_run import TERMINATE_S, HostRun
from engine.supervision.host_state import StateWriter
from engine.supervision.stack_dump import report_stack

SAMPLE_S = 2.0
LOST_CONTROLLER_S = 4.0
"""Time for a graceful stop of a run whose controller is gone."""
ASKED_S = 20.0
"""The same after SIGTERM; `tianji down` waits a little longer."""
GIVE_UP_S = 26.0
"""Beside the coordinator, a run that SIGTERM has not stopped by then is killed: `tianji down` has
done so a second earlier, and a cluster manager does so 30 s after its SIGTERM."""
ONE_BY_ONE_S = 0.25
"""A manager that ends a job signals one process after the other: a role can fail because of it
before this supervisor is asked to end."""
EXIT_S = 5.0
"""Time-out for roles to exit after the coordinator."""


class Supervisor:
    """Supervises the roles of one host."""

    def __init__(self) -> None:
        self._link = ControllerLink()
        self._timers = TimerQueue()
        self._run: HostRun | None = None
        self._coordinator: CoordinatorLink | None = None
        self._state_writer: StateWriter | None = None
        self._is_over = False
        """Whether the coordinator has ended the run."""
        self._is_done = False

    def run(self) -> None:
        """Serves until no role is left, or nothing was started."""
        self._link.report(hello())
        while not self._is_done:
            for message in self._wait():
                self._from_coordinator(message)
            for _ in range(self._link.take_requests()):
                self._asked_to_end()  # first: it can also be what has ended a child of a role
            if self._run is not None:
                self._look_after(self._run)
            for instruction in self._link.read():
                self._instructed(instruction)
            if self._link.is_lost():
                self._lost_controller()
            self._timers.run_due()
            self._link.flush()
            if self._run is not None:
                self._run.children.flush()
            self._finish_if_empty()
        self._close()

    def _wait(self) -> Iterator[AnyMessage]:
        timeout_s = self._timers.timeout_s()
        to_forkserver = self._run.children.unwritten_fd if self._run else None
        unwritten = {fd for fd in (self._link.unwritten_fd, to_forkserver) if fd is not None}
        if self._coordinator is not None:
            self._coordinator.watch_writable(unwritten)
            yield from self._coordinator.receive(timeout_s)
            return
        fds = [*self._link.fds, *([self._run.children.reader.fd] if self._run else [])]
        select.select(fds, list(unwritten), [], timeout_s)

    def _instructed(self, instruction: ToSupervisor) -> None:
        match instruction:
            case Prepare():
                self._prepare(instruction)
            case Launch():
                self._launch(instruction)
            case Ping(number=number):
                now = Pong(number=number, monotonic_ns=time.monotonic_ns(), unix_ns=time.time_ns())
                self._link.report(now)
            case Detach():
                self._detach()
            case HostGone() | TrackerFailed():
                self._send(instruction)
            case StopRun():
                self._request_stop("interrupted")
            case KillRun():
                self._kill()
            case Beat():
                pass  # its arrival is all that matters

    def _prepare(self, instruction: Prepare) -> None:
        if instruction.lease_s is not None:
            self._link.lease_s = instruction.lease_s
            self._timers.every(1.0, lambda: None)  # so that silence is noticed
        self._run = HostRun(instruction, self._timers)

    def _launch(self, launch: Launch) -> None:
        run = self._run
        assert run is not None
        self._state_writer = StateWriter(Path(launch.common.run_dir), run, self._timers)
        fds = [*self._link.fds, run.children.reader.fd]
        self._coordinator = CoordinatorLink(launch, run.prepare.address, run.keys, fds)
        run.children.introduce(launch.common)
        for worker in launch.workers:
            run.children.spawn(worker)
        self._timers.every(BEAT_S, self._beat)
        self._timers.every(SAMPLE_S, self._sample)

    def _beat(self) -> None:
        assert self._coordinator is not None
        assert self._run is not None
        if self._run.is_ending:
            return
        self._coordinator.beat()
        if self._coordinator.is_silent():
            cause = f"heard nothing from the coordinator for {LEASE_S:.0f} s"
            self._fail(self._coordinator.address, cause)
            self._run.end_within(0.0)

    def _sample(self) -> None:
        """Reports the resources of each role, and bounds their logs."""
        if self._state_writer is not None:
            self._state_writer.write()
            cap_logs(self._state_writer.log.parent)
        assert self._coordinator is not None
        assert self._run is not None
        if self._coordinator.clock is not None:
            rows = self._run.children.measure(self._coordinator.clock)
            self._send(Report(address=self._coordinator.address, records=list(rows)))

    def _look_after(self, run: HostRun) -> None:
        for report in run.children.reader.read():
            self._from_child(run, report)
        if run.children.reader.at_end and not self._is_done:
            self._lost_forkserver(run)

    def _from_child(self, run: HostRun, report: FromForkserver) -> None:
        match report:
            case Prepared():
                self._link.report(run.reserve(report))
            case Refused():
                self._link.report(report)
            case Spawned(address=address, pid=pid):
                run.children.spawned(address, pid)
                if self._state_writer is not None:
                    survived(self._state_writer.state.failures, address)
                self._link.report(report)
                self._state_changed()
            case Exited():
                self._exited(run, report)

    def _exited(self, run: HostRun, report: Exited) -> None:
        cause = run.children.exited(report)
        is_coordinator = report.address == COORDINATOR
        is_wanted = report.is_clean and (self._is_over or is_coordinator)
        if not is_wanted and not run.is_ending:
            exited = RoleExited(
                process=report.address,
                host=run.prepare.host,
                cause=cause,
                log_tail=log_tail(run.children.log_of(report.address)),
            )
            if is_coordinator and not report.is_clean:
                self._explain(exited)
            elif report.is_clean or self._link.num_requests:
                # Possibly expected: the message that ends the run can still be in transit.
                self._timers.add(TERMINATE_S, lambda: self._explain(exited))
            else:
                self._timers.add(ONE_BY_ONE_S, lambda: self._explain_unless_asked(exited))
        if is_coordinator:
            self._is_over = True
            run.end_within(EXIT_S if report.is_clean else 0.0)
        self._state_changed()

    def _explain_unless_asked(self, exited: RoleExited) -> None:
        """If SIGTERM has come since, its exit is possibly a part of the same end."""
        if self._link.num_requests:
            self._timers.add(TERMINATE_S, lambda: self._explain(exited))
        else:
            self._explain(exited)

    def _explain(self, exited: RoleExited) -> None:
        """Reports an unexpected exit."""
        assert self._run is not None
        if not self._is_over and not self._run.is_ending:
            self._fail(exited.process, exited.cause, exited.log_tail)
            self._send(exited)

    def _lost_forkserver(self, run: HostRun) -> None:
        """Its roles die with it; the kernel ensures that."""
        self._fail("the forkserver of all roles", *run.children.last_words())
        self._is_done = True

    def _from_coordinator(self, message: AnyMessage) -> None:
        assert self._coordinator is not None
        assert self._run is not None
        match message:
            case Start(origin_ns=origin_ns):
                self._coordinator.start(origin_ns)
            case Alive():
                self._coordinator.hear()
            case StackWanted():
                report_stack(message, self._run, self._timers, self._link, self._coordinator)
            case Restart():
                self._restart(self._run, message)
            case ProgressShown(progress=progress):
                if self._state_writer is not None:
                    self._state_writer.state.progress = progress
                self._link.report(Shown(progress=progress))
            case Exit():
                self._is_over = True
                self._run.end_within(EXIT_S)

    def _restart(self, run: HostRun, message: Restart) -> None:
        if not run.is_ending and message.process not in run.children.running:
            worker = run.children.specs[message.process]
            run.children.spawn(msgspec.structs.replace(worker, epoch=message.epoch))

    def _finish_if_empty(self) -> None:
        """The end of the run here; while it runs elsewhere, an actor can still be restarted."""
        run = self._run
        if run is None or not run.is_ending:
            return
        if run.is_overdue or not run.children.running:
            self._is_done = True

    @property
    def _is_head(self) -> bool:
        """Whether the coordinator is on this host."""
        return self._run is not None and COORDINATOR in self._run.children.specs

    def _request_stop(self, reason: Literal["interrupted", "controller-lost"]) -> None:
        if self._coordinator is None:
            self._is_done = True  # nothing was started, so nothing is to be stopped
        else:
            self._send(StopRequested(reason=reason))

    def _leave_within(self, seconds: float) -> None:
        """Ends the part of the run on this host, and the run continues without it; unless the whole
        run has stopped gracefully by then, as it does if the supervisor beside the coordinator
        gets the same request."""
        if self._coordinator is None:
            self._is_done = True
        self._timers.add(seconds, self._leave)

    def _leave(self) -> None:
        run = self._run
        if run is not None and not run.is_ending:
            self._send(HostGone(host=run.prepare.host))
            run.end_within(0.0)

    def _asked_to_end(self) -> None:
        """SIGTERM: the first stops gracefully, the second kills."""
        if self._link.num_requests > 1:
            self._kill()
        elif self._is_head:
            self._request_stop("interrupted")
            self._timers.add(GIVE_UP_S, self._kill)
        else:
            self._leave_within(ASKED_S)

    def _kill(self) -> None:
        if self._run is None:
            self._is_done = True
        else:
            self._run.end_now()

    def _lost_controller(self) -> None:
        self._unwatch(self._link.leave())
        if not self._is_head:
            self._leave_within(LOST_CONTROLLER_S)
        else:
            self._request_stop("controller-lost")
            if self._run is not None:
                self._run.end_within(LOST_CONTROLLER_S)

    def _detach(self) -> None:
        assert self._state_writer is not None
        self._link.report(Detached())
        self._unwatch(self._link.detach(self._state_writer.log))
        self._state_writer.state.is_detached = True
        self._state_writer.write()

    def _fail(self, address: str, cause: str, tail: list[str] | None = None) -> None:
        host = self._run.prepare.host if self._run else ""
        failed = Failed(address=address, cause=cause, log_tail=tail or [], host=host)
        if self._state_writer is not None:
            self._state_writer.state.failures.append(failed)
        self._link.report(failed)

    def _state_changed(self) -> None:
        if self._state_writer is not None:
            self._state_writer.write_soon()

    def _send(self, message: AnyMessage) -> None:
        """Sends to the coordinator, unless it has ended the run."""
        if self._coordinator is not None and not self._is_over:
            self._coordinator.send(message)

    def _unwatch(self, fds: list[int]) -> None:
        if self._coordinator is not None:
            self._coordinator.unwatch(fds)

    def _close(self) -> None:
        if self._coordinator is not None:
            self._coordinator.close()
        if self._run is not None:
            self._run.close()
        if self._state_writer is not None:
            self._state_writer.end()
        if self._coordinator is not None:
            self._link.report(Finished())
        self._link.drain()


def main() -> None:
    """Supervises until the run is over; the controller handles SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    name_process("tj-supervisor")
    try:
        raise_limit()
        Supervisor().run()
    except Exception as error:
        if (known := of_machine(error)) is None:
            raise
        print(f"error: {known}", file=sys.stderr, flush=True)
        sys.exit(known.exit_code)


if __name__ == "__main__":
    main()
