"""The node supervisor: one for each host; starts, watches, restarts and ends the roles there.

It takes instructions on standard input and reports on standard output, so it works the same under
a local parent and behind SSH. Only the supervisor beside the coordinator asks for the end of all of
the run; the others end their host's part. That happens, whatever happens elsewhere, as soon as

- standard input ends or stays silent for too long (whoever started it is gone, or cut off),
- the coordinator stays silent for too long (this host is cut off, or the other one is dead), or
- SIGTERM comes, which is how a detached run, that has no standard input any more, is stopped.

It imports no torch; the nursery does the heavy lifting.
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

from engine.control_protocol import (
    Beat,
    Detach,
    Detached,
    Exited,
    Failed,
    Finished,
    FromNursery,
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
)
from engine.errors import of_machine
from engine.host.descriptors import raise_limit
from engine.host.log_cap import cap_logs
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
)
from engine.roles.coordinator.liveness import BEAT_S, LEASE_S
from engine.supervision.controller_link import HostLink, hello
from engine.supervision.coordinator_link import Upstream
from engine.supervision.host_run import TERMINATE_S, Household
from engine.supervision.stack_dump import report_stack
from engine.supervision.state_writer import Scribe
from engine.supervision.timer_queue import Agenda

SAMPLE_S = 2.0
LOST_CONTROLLER_S = 4.0
"""How long a run whose controller is gone may take to end in good order."""
ASKED_S = 20.0
"""The same for one whose supervisors were asked to end it; `tianji down` waits a little longer."""
EXIT_S = 5.0
"""How long roles may take to exit once the coordinator has."""


class Supervisor:
    """Supervises the roles of one host."""

    def __init__(self) -> None:
        self._link = HostLink()
        self._agenda = Agenda()
        self._house: Household | None = None
        self._upstream: Upstream | None = None
        self._scribe: Scribe | None = None
        self._is_over = False
        """The coordinator has ended the run."""
        self._is_done = False

    def run(self) -> None:
        """Serves until no role is left, or until there is nothing to serve."""
        self._link.report(hello())
        while not self._is_done:
            for message in self._wait():
                self._from_coordinator(message)
            if self._house is not None:
                self._look_after(self._house)
            for instruction in self._link.read():
                self._instructed(instruction)
            if self._link.is_lost():
                self._lost_controller()
            for _ in range(self._link.take_signals()):
                self._asked_to_end()
            self._agenda.run_due()
            self._link.flush()
            if self._house is not None:
                self._house.children.flush()
            self._finish_if_empty()
        self._close()

    def _wait(self) -> Iterator[AnyMessage]:
        timeout_s = self._agenda.timeout_s()
        to_nursery = self._house.children.unwritten_fd if self._house else None
        unwritten = {fd for fd in (self._link.unwritten_fd, to_nursery) if fd is not None}
        if self._upstream is not None:
            self._upstream.watch_writable(unwritten)
            yield from self._upstream.receive(timeout_s)
            return
        fds = [*self._link.fds, *([self._house.children.reader.fd] if self._house else [])]
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
            case HostGone():
                self._send(instruction)
            case StopRun():
                self._request_stop("interrupted")
            case KillRun():
                self._kill()
            case Beat():
                pass  # that it came is all it says

    def _prepare(self, instruction: Prepare) -> None:
        if instruction.lease_s is not None:
            self._link.lease_s = instruction.lease_s
            self._agenda.every(1.0, lambda: None)  # so that silence is noticed
        self._house = Household(instruction, self._agenda)

    def _launch(self, launch: Launch) -> None:
        house = self._house
        assert house is not None
        self._scribe = Scribe(Path(launch.common.run_dir), house, self._agenda)
        fds = [*self._link.fds, house.children.reader.fd]
        self._upstream = Upstream(launch, fds)
        house.children.introduce(launch.common)
        for worker in launch.workers:
            house.children.spawn(worker)
        self._agenda.every(BEAT_S, self._beat)
        self._agenda.every(SAMPLE_S, self._sample)

    def _beat(self) -> None:
        assert self._upstream is not None
        assert self._house is not None
        if self._house.is_ending:
            return
        self._upstream.beat()
        if self._upstream.is_silent():
            cause = f"heard nothing from the coordinator for {LEASE_S:.0f} s"
            self._fail(self._upstream.address, cause)
            self._house.end_within(0.0)

    def _sample(self) -> None:
        """Reports what each role has used, and keeps their logs small."""
        if self._scribe is not None:
            self._scribe.write()
            cap_logs(self._scribe.log.parent)
        assert self._upstream is not None
        assert self._house is not None
        if self._upstream.clock is not None:
            rows = self._house.children.measure(self._upstream.clock)
            self._send(Report(address=self._upstream.address, records=list(rows)))

    def _look_after(self, house: Household) -> None:
        for report in house.children.reader.read():
            self._from_child(house, report)
        if house.children.reader.at_end and not self._is_done:
            self._lost_nursery(house)

    def _from_child(self, house: Household, report: FromNursery) -> None:
        match report:
            case Prepared():
                self._link.report(house.reserve(report))
            case Refused():
                self._link.report(report)
            case Spawned(address=address, pid=pid):
                house.children.spawned(address, pid)
                self._link.report(report)
                self._state_changed()
            case Exited():
                self._exited(house, report)

    def _exited(self, house: Household, report: Exited) -> None:
        cause = house.children.exited(report)
        is_coordinator = report.address == COORDINATOR
        is_wanted = report.is_clean and (self._is_over or is_coordinator)
        if not is_wanted and not house.is_ending:
            exited = RoleExited(
                process=report.address,
                host=house.prepare.host,
                cause=cause,
                log_tail=log_tail(house.children.log_of(report.address)),
            )
            if report.is_clean:  # maybe it was wanted, and the word for it is still on its way here
                self._agenda.add(TERMINATE_S, lambda: self._explain(exited))
            else:
                self._explain(exited)
        if is_coordinator:
            self._is_over = True
            house.end_within(EXIT_S if report.is_clean else 0.0)
        self._state_changed()

    def _explain(self, exited: RoleExited) -> None:
        """Reports a death that nobody wanted."""
        assert self._house is not None
        if not self._is_over and not self._house.is_ending:
            self._fail(exited.process, exited.cause, exited.log_tail)
            self._send(exited)

    def _lost_nursery(self, house: Household) -> None:
        """Its roles die with it; the kernel sees to that."""
        self._fail("the nursery of all roles", *house.children.last_words())
        self._is_done = True

    def _from_coordinator(self, message: AnyMessage) -> None:
        assert self._upstream is not None
        assert self._house is not None
        match message:
            case Start(origin_ns=origin_ns):
                self._upstream.start(origin_ns)
            case Alive():
                self._upstream.hear()
            case StackWanted():
                report_stack(message, self._house, self._agenda, self._link, self._upstream)
            case Restart():
                self._restart(self._house, message)
            case ProgressShown(progress=progress):
                if self._scribe is not None:
                    self._scribe.state.progress = progress
                self._link.report(Shown(progress=progress))
            case Exit():
                self._is_over = True
                self._house.end_within(EXIT_S)

    def _restart(self, house: Household, message: Restart) -> None:
        if not house.is_ending and message.process not in house.children.running:
            worker = house.children.specs[message.process]
            house.children.spawn(msgspec.structs.replace(worker, epoch=message.epoch))

    def _finish_if_empty(self) -> None:
        """The end of the run here; while it goes on elsewhere, an actor may still come back."""
        house = self._house
        if house is None or not house.is_ending:
            return
        if house.is_overdue or not house.children.running:
            self._is_done = True

    @property
    def _is_head(self) -> bool:
        """Whether the coordinator is on this host."""
        return self._house is not None and COORDINATOR in self._house.children.specs

    def _request_stop(self, reason: Literal["interrupted", "controller-lost"]) -> None:
        if self._upstream is None:
            self._is_done = True  # nothing was started, so nothing is to be stopped
        else:
            self._send(StopRequested(reason=reason))

    def _leave_within(self, seconds: float) -> None:
        """Ends the part of the run on this host, which goes on without it; unless by then all of it
        has ended in good order, as it does when the supervisor beside the coordinator is told the
        same."""
        if self._upstream is None:
            self._is_done = True
        self._agenda.add(seconds, self._leave)

    def _leave(self) -> None:
        house = self._house
        if house is not None and not house.is_ending:
            self._send(HostGone(host=house.prepare.host))
            house.end_within(0.0)

    def _asked_to_end(self) -> None:
        """SIGTERM: once in good order, twice at once."""
        if self._link.num_signals > 1:
            self._kill()
        elif self._is_head:
            self._request_stop("interrupted")
        else:
            self._leave_within(ASKED_S)

    def _kill(self) -> None:
        if self._house is None:
            self._is_done = True
        else:
            self._house.end_now()

    def _lost_controller(self) -> None:
        self._unwatch(self._link.leave())
        if not self._is_head:
            self._leave_within(LOST_CONTROLLER_S)
        else:
            self._request_stop("controller-lost")
            if self._house is not None:
                self._house.end_within(LOST_CONTROLLER_S)

    def _detach(self) -> None:
        assert self._scribe is not None
        self._link.report(Detached())
        self._unwatch(self._link.detach(self._scribe.log))
        self._scribe.state.is_detached = True
        self._scribe.write()

    def _fail(self, address: str, cause: str, tail: list[str] | None = None) -> None:
        host = self._house.prepare.host if self._house else ""
        failed = Failed(address=address, cause=cause, log_tail=tail or [], host=host)
        if self._scribe is not None:
            self._scribe.state.failures.append(failed)
        self._link.report(failed)

    def _state_changed(self) -> None:
        if self._scribe is not None:
            self._scribe.write_soon()

    def _send(self, message: AnyMessage) -> None:
        """To the coordinator, unless it has ended the run."""
        if self._upstream is not None and not self._is_over:
            self._upstream.send(message)

    def _unwatch(self, fds: list[int]) -> None:
        if self._upstream is not None:
            self._upstream.unwatch(fds)

    def _close(self) -> None:
        if self._upstream is not None:
            self._upstream.close()
        if self._house is not None:
            self._house.close()
        if self._scribe is not None:
            self._scribe.end()
        if self._upstream is not None:
            self._link.report(Finished())
        self._link.drain()


def main() -> None:
    """Supervises until the run is over; SIGINT is the controller's business."""
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
