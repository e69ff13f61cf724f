"""The node supervisor: one for each host; starts, watches, restarts and ends the roles there.

It takes instructions on standard input and reports on standard output, so it works the same under
a local parent and behind SSH. The run ends here, whatever happens elsewhere, as soon as

- standard input ends or stays silent for too long (whoever started it is gone, or cut off),
- the coordinator stays silent for too long (this host is cut off, or the other one is dead), or
- SIGTERM comes, which is how a detached run, that has no standard input any more, is stopped.

It imports no torch; the nursery does the heavy lifting.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from engine.clock import RunClock
from engine.errors import TianJiError, WireError
from engine.messages import (
    COORDINATOR,
    Alive,
    AnyMessage,
    Exit,
    ProgressShown,
    Report,
    Restart,
    RoleExited,
    Start,
    StopRequested,
)
from engine.roles.fleet import BEAT_S, LEASE_S
from engine.runtime.agenda import Agenda
from engine.runtime.children import Children
from engine.runtime.endpoints import Endpoints
from engine.runtime.host_link import HostLink, hello
from engine.runtime.identity import RUN_VARIABLE, kill_marked, mark
from engine.runtime.launch import (
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
from engine.runtime.process import describe_returncode, log_tail, name_process
from engine.runtime.scribe import Scribe
from engine.wire.codec import Codec
from engine.wire.sockets import Sockets

SAMPLE_S = 2.0
LOST_CONTROLLER_S = 4.0
"""How long a run whose controller is gone may take to end in good order."""
EXIT_S = 5.0
"""How long roles may take to exit once the coordinator has."""
TERMINATE_S = 3.0
"""Between SIGTERM and SIGKILL."""
FIRST_WORD_S = 60.0
"""How long the coordinator may take to be heard for the first time."""


class Supervisor:
    """Supervises the roles of one host."""

    def __init__(self) -> None:
        self._link = HostLink()
        self._agenda = Agenda()
        self._endpoints = Endpoints()
        self._children: Children | None = None
        self._sockets: Sockets | None = None
        self._scribe: Scribe | None = None
        self._prepare: Prepare | None = None
        self._launch: Launch | None = None
        self._clock: RunClock | None = None
        self._lease_ends_s = float("inf")
        self._is_over = False
        self._is_ending = False
        self._is_done = False

    def run(self) -> None:
        """Serves until no role is left, or until there is nothing to serve."""
        self._link.report(hello())
        while not self._is_done:
            for _, message in self._wait():
                self._from_role(message)
            if self._children is not None:
                for report in self._children.reader.read():
                    self._from_child(report)
                if self._children.reader.at_end and not self._is_done:
                    self._lost_nursery()
            for instruction in self._link.read():
                self._instructed(instruction)
            if self._link.is_lost():
                self._lost_controller()
            for _ in range(self._link.take_signals()):
                self._asked_to_end()
            self._agenda.run_due()
        self._close()

    def _wait(self) -> Iterator[tuple[str, AnyMessage | WireError]]:
        timeout_s = self._agenda.timeout_s()
        if self._sockets is not None:
            yield from self._sockets.receive(timeout_s)
            return
        fds = [*self._link.fds, *([self._children.reader.fd] if self._children else [])]
        select.select(fds, [], [], timeout_s)

    def _instructed(self, instruction: ToSupervisor) -> None:
        match instruction:
            case Prepare():
                self._prepare_run(instruction)
            case Launch():
                self._launch_run(instruction)
            case Ping(number=number):
                now = Pong(number=number, monotonic_ns=time.monotonic_ns(), unix_ns=time.time_ns())
                self._link.report(now)
            case Detach():
                self._detach()
            case StopRun():
                self._request_stop("interrupted")
            case KillRun():
                self._kill()
            case Beat():
                pass  # that it came is all it says

    def _prepare_run(self, instruction: Prepare) -> None:
        self._prepare = instruction
        if instruction.lease_s is not None:
            self._link.lease_s = instruction.lease_s
            self._agenda.every(1.0, lambda: None)  # so that silence is noticed
        marked = {RUN_VARIABLE: mark(instruction.run_id, instruction.host)}
        self._children = Children({**instruction.env, **marked})
        self._children.prepare(instruction)

    def _launch_run(self, launch: Launch) -> None:
        assert self._prepare is not None
        assert self._children is not None
        self._launch = launch
        directory = self._endpoints.directory
        self._scribe = Scribe(Path(launch.run_dir), self._prepare, str(directory or ""))
        self._sockets = Sockets(launch.address, launch.wiring, Codec.for_messages())
        for fd in (*self._link.fds, self._children.reader.fd):
            self._sockets.watch(fd)
        for worker in launch.workers:
            self._children.spawn(worker)
        self._lease_ends_s = time.monotonic() + FIRST_WORD_S
        self._agenda.every(BEAT_S, self._beat)
        self._agenda.every(SAMPLE_S, self._sample)

    def _beat(self) -> None:
        assert self._launch is not None
        assert self._prepare is not None
        if self._is_ending:
            return
        if time.monotonic() > self._lease_ends_s:
            self._fail(self._launch.address, f"nothing heard from the coordinator for {LEASE_S} s")
            self._end_within(0.0)
            return
        self._send(Alive(address=self._launch.address, host=self._prepare.host))

    def _from_child(self, report: FromNursery) -> None:
        assert self._children is not None
        match report:
            case Prepared():
                self._prepared(report)
            case Refused():
                self._link.report(report)
            case Spawned(address=address, pid=pid):
                self._children.spawned(address, pid)
                self._link.report(report)
                self._write_state()
            case Exited():
                self._exited(report)

    def _prepared(self, report: Prepared) -> None:
        assert self._prepare is not None
        try:
            found = self._endpoints.reserve(self._prepare.num_endpoints, self._prepare.listen)
        except TianJiError as error:
            where = f"{self._prepare.host}: {error.where}"
            refused = Refused(
                exit_code=error.exit_code, what=error.what, where=where, fix=error.fix
            )
            self._link.report(refused)
            return
        self._link.report(msgspec.structs.replace(report, endpoints=found))

    def _exited(self, report: Exited) -> None:
        assert self._children is not None
        worker = self._children.exited(report.address)
        is_expected = self._is_ending or (
            report.is_clean and (self._is_over or report.address == COORDINATOR)
        )
        if not is_expected:
            tail = log_tail(Path(worker.log))
            exited = RoleExited(
                process=report.address, host=worker.host, cause=report.cause, log_tail=tail
            )
            self._explain(exited, report.is_clean)
        if report.address == COORDINATOR:
            self._is_over = True
            self._end_within(EXIT_S if report.is_clean else 0.0)
        self._write_state()
        self._finish_if_empty()

    def _explain(self, exited: RoleExited, is_clean: bool) -> None:
        """Reports a death; a clean one may have been wanted, the word for it still under way."""

        def tell() -> None:
            if not self._is_over and not self._is_ending:
                self._fail(exited.process, exited.cause, exited.log_tail)
                self._send(exited)
            self._finish_if_empty()

        if is_clean and COORDINATOR not in self._specs:
            self._agenda.add(TERMINATE_S, tell)
        else:
            tell()

    @property
    def _specs(self) -> set[str]:
        return set(self._children.specs) if self._children else set()

    def _finish_if_empty(self) -> None:
        """The end of the run here; while it goes on elsewhere, an actor may still come back."""
        assert self._children is not None
        if not self._children.running and (self._is_over or self._is_ending):
            self._is_done = True

    def _from_role(self, message: AnyMessage | WireError) -> None:
        match message:
            case Start(origin_ns=origin_ns):
                assert self._launch is not None
                self._clock = RunClock(origin_ns + self._launch.clock_offset_ns)
            case Alive():
                self._lease_ends_s = time.monotonic() + LEASE_S
            case Restart():
                self._restart(message)
            case ProgressShown(progress=progress):
                if self._scribe is not None:
                    self._scribe.state.progress = progress
                self._link.report(Shown(progress=progress))
            case Exit():
                self._is_over = True
                self._end_within(EXIT_S)
                self._finish_if_empty()
            case WireError():
                print(f"refused: {message}", file=sys.stderr, flush=True)

    def _restart(self, message: Restart) -> None:
        assert self._children is not None
        if self._is_ending or message.process in self._children.running:
            return
        worker = self._children.specs[message.process]
        self._children.spawn(msgspec.structs.replace(worker, epoch=message.epoch))

    def _request_stop(self, reason: str) -> None:
        if self._launch is None:
            self._is_done = True  # nothing was started, so nothing is to be stopped
        elif reason == "interrupted":
            self._send(StopRequested(reason="interrupted"))
        else:
            self._send(StopRequested(reason="controller-lost"))

    def _asked_to_end(self) -> None:
        """SIGTERM: once in good order, twice at once."""
        if self._link.num_signals > 1:
            self._kill()
        else:
            self._request_stop("interrupted")

    def _kill(self) -> None:
        self._is_ending = True
        if self._children is None or not self._children.running:
            self._is_done = True
        else:
            self._children.signal_all(signal.SIGKILL)

    def _lost_controller(self) -> None:
        self._unwatch(self._link.leave())
        self._request_stop("controller-lost")
        self._end_within(LOST_CONTROLLER_S)

    def _detach(self) -> None:
        assert self._scribe is not None
        self._link.report(Detached())
        self._unwatch(self._link.detach(self._scribe.log))
        self._scribe.state.is_detached = True
        self._write_state()

    def _lost_nursery(self) -> None:
        """Its roles die with it; the kernel sees to that."""
        assert self._children is not None
        code, words = self._children.last_words()
        self._fail("the nursery of all roles", describe_returncode(code), words)
        self._is_done = True

    def _fail(self, address: str, cause: str, tail: list[str] | None = None) -> None:
        host = self._prepare.host if self._prepare else ""
        failed = Failed(address=address, cause=cause, log_tail=tail or [], host=host)
        if self._scribe is not None:
            self._scribe.state.failures.append(failed)
        self._link.report(failed)

    def _end_within(self, seconds: float) -> None:
        """Gives the roles some time, then SIGTERM, then SIGKILL; an earlier plan stands."""
        if self._is_ending:
            return
        self._is_ending = True
        self._agenda.add(seconds, lambda: self._signal_all(signal.SIGTERM))
        self._agenda.add(seconds + TERMINATE_S, lambda: self._signal_all(signal.SIGKILL))
        self._agenda.add(seconds, self._finish_if_launched)

    def _finish_if_launched(self) -> None:
        if self._children is None:
            self._is_done = True
        else:
            self._finish_if_empty()

    def _signal_all(self, number: int) -> None:
        if self._children is not None:
            self._children.signal_all(number)

    def _sample(self) -> None:
        """Reports what each role has used, and that this supervisor lives."""
        self._write_state()
        if self._clock is not None and self._launch is not None and self._children is not None:
            rows = self._children.measure(self._clock)
            self._send(Report(address=self._launch.address, records=list(rows)))

    def _write_state(self) -> None:
        if self._scribe is not None and self._children is not None:
            self._scribe.write(self._children.identities())

    def _send(self, message: AnyMessage) -> None:
        """To the coordinator."""
        if self._sockets is None or self._is_over:
            return
        try:
            self._sockets.send(COORDINATOR, message)
        except WireError as error:
            print(f"the coordinator does not listen: {error}", file=sys.stderr, flush=True)

    def _unwatch(self, fds: list[int]) -> None:
        if self._sockets is not None:
            for fd in fds:
                self._sockets.unwatch(fd)

    def _close(self) -> None:
        """Proves the end: whatever carries the run's mark and is not us is killed."""
        if self._sockets is not None:
            self._sockets.close(linger_ms=0)
        if self._children is not None:
            self._children.close()
        if self._prepare is not None:
            kill_marked(mark(self._prepare.run_id, self._prepare.host), spare={os.getpid()})
        self._endpoints.release()
        if self._scribe is not None:
            self._scribe.end()
        if self._launch is not None:
            self._link.report(Finished())


def main() -> None:
    """Supervises until the run is over; SIGINT is the controller's business."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    name_process("tj-supervisor")
    Supervisor().run()


if __name__ == "__main__":
    main()
