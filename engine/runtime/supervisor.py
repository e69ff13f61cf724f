"""The node supervisor: one for each host; starts, watches and ends the roles there.

It takes instructions on standard input and reports on standard output, so it works the same under
a local parent and behind SSH. When standard input ends, whoever started it is gone: then the run
ends here too, whatever happens. It imports no torch; the nursery does the heavy lifting.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from engine.clock import RunClock
from engine.errors import WireError
from engine.messages import (
    COORDINATOR,
    AnyMessage,
    ProgressShown,
    Report,
    RoleExited,
    Start,
    StopRequested,
)
from engine.runtime.launch import (
    Exited,
    Failed,
    Finished,
    FromNursery,
    KillRun,
    Launch,
    LineReader,
    Prepare,
    Prepared,
    Refused,
    Shown,
    Signal,
    Spawn,
    Spawned,
    StopRun,
    ToSupervisor,
    WorkerSpec,
    write_line,
)
from engine.runtime.process import describe_returncode, log_tail, name_process, take_stdout
from engine.trace.records import Resources
from engine.wire.codec import Codec
from engine.wire.sockets import Sockets

SAMPLE_S = 2.0
LOST_CONTROLLER_S = 4.0
"""How long a run whose controller is gone may take to end in good order."""
EXIT_S = 5.0
"""How long roles may take to exit once the coordinator has."""
TERMINATE_S = 3.0
"""Between SIGTERM and SIGKILL."""

_ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}


class Supervisor:
    """Supervises the roles of one host."""

    def __init__(self) -> None:
        self._out = take_stdout()
        self._controller: LineReader[ToSupervisor] = LineReader(0, ToSupervisor)
        self._nursery = subprocess.Popen(
            [sys.executable, "-m", "engine.runtime.nursery"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            env={**os.environ, **_ONE_THREAD},
        )
        assert self._nursery.stdin is not None
        assert self._nursery.stdout is not None
        self._to_nursery = self._nursery.stdin.fileno()
        self._from_nursery: LineReader[FromNursery] = LineReader(
            self._nursery.stdout.fileno(), FromNursery
        )
        self._sockets: Sockets | None = None
        self._address = ""
        self._socket_dir = ""
        self._workers: dict[str, WorkerSpec] = {}
        self._running: dict[str, psutil.Process | None] = {}
        self._clock: RunClock | None = None
        self._sample_at_s = time.monotonic()
        self._escalation: list[tuple[float, int]] = []
        self._is_ending = False
        self._controller_is_gone = False
        self._is_done = False

    def run(self) -> None:
        """Serves until no role is left, or until there is nothing to serve."""
        while not self._is_done:
            for _, message in self._wait():
                self._from_role(message)
            for report in self._from_nursery.read():
                self._from_child(report)
            if self._from_nursery.at_end:
                self._lost_nursery()
            for instruction in self._controller.read():
                self._instructed(instruction)
            if self._controller.at_end and not self._controller_is_gone:
                self._lost_controller()
            self._escalate()
            self._sample()
        self._close()

    def _wait(self) -> Iterator[tuple[str, AnyMessage | WireError]]:
        timeout_s = self._timeout_s()
        if self._sockets is not None:
            yield from self._sockets.receive(timeout_s)
            return
        fds = [self._from_nursery.fd, self._controller.fd]
        select.select(fds, [], [], timeout_s)

    def _timeout_s(self) -> float | None:
        times = [at_s for at_s, _ in self._escalation[:1]]
        if self._running and self._clock is not None:
            times.append(self._sample_at_s)
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _instructed(self, instruction: ToSupervisor) -> None:
        match instruction:
            case Prepare():
                self._tell_nursery(instruction)
            case Launch():
                self._launch(instruction)
            case StopRun():
                self._request_stop("interrupted")
            case KillRun():
                self._is_ending = True
                self._signal_all(signal.SIGKILL)
                self._is_done = not self._running

    def _launch(self, launch: Launch) -> None:
        self._address = launch.address
        self._socket_dir = launch.socket_dir
        self._sockets = Sockets(launch.address, launch.wiring, Codec.for_messages())
        for fd in (self._from_nursery.fd, self._controller.fd):
            self._sockets.watch(fd)
        for worker in launch.workers:
            self._workers[worker.address] = worker
            self._running[worker.address] = None
            self._tell_nursery(Spawn(worker=worker))

    def _from_child(self, report: FromNursery) -> None:
        match report:
            case Prepared() | Refused():
                self._report(report)
            case Spawned(address=address, pid=pid):
                self._running[address] = _process(pid)
                self._report(report)
            case Exited():
                self._exited(report)

    def _exited(self, report: Exited) -> None:
        address = report.address
        del self._running[address]
        ended_well = report.is_clean and (address == COORDINATOR or not self._coordinator_runs)
        if not ended_well and not self._is_ending:
            worker = self._workers[address]
            tail = log_tail(Path(worker.log))
            self._report(Failed(address=address, cause=report.cause, log_tail=tail))
            exited = RoleExited(
                process=address, host=worker.host, cause=report.cause, log_tail=tail
            )
            self._send_coordinator(exited)
        if address == COORDINATOR:
            self._end_within(EXIT_S if report.is_clean else 0.0)
        if not self._running:
            self._report(Finished())
            self._is_done = True

    @property
    def _coordinator_runs(self) -> bool:
        return COORDINATOR in self._running or COORDINATOR not in self._workers

    def _from_role(self, message: AnyMessage | WireError) -> None:
        match message:
            case Start(origin_ns=origin_ns):
                self._clock = RunClock(origin_ns)
            case ProgressShown(progress=progress):
                self._report(Shown(progress=progress))
            case WireError():
                print(f"refused: {message}", file=sys.stderr, flush=True)

    def _request_stop(self, reason: str) -> None:
        if not self._workers:
            self._is_done = True  # nothing was started, so nothing is to be stopped
        elif reason == "interrupted":
            self._send_coordinator(StopRequested(reason="interrupted"))
        else:
            self._send_coordinator(StopRequested(reason="controller-lost"))

    def _lost_controller(self) -> None:
        self._controller_is_gone = True
        self._unwatch(self._controller.fd)
        self._request_stop("controller-lost")
        self._end_within(LOST_CONTROLLER_S)

    def _lost_nursery(self) -> None:
        """Its roles die with it; the kernel sees to that."""
        cause = describe_returncode(self._nursery.wait())
        self._report(Failed(address="the nursery of all roles", cause=cause, log_tail=[]))
        self._report(Finished())
        self._is_done = True

    def _end_within(self, seconds: float) -> None:
        """Gives the roles some time, then SIGTERM, then SIGKILL; an earlier plan stands."""
        if not self._is_ending:
            self._is_ending = True
            at_s = time.monotonic() + seconds
            self._escalation = [(at_s, signal.SIGTERM), (at_s + TERMINATE_S, signal.SIGKILL)]

    def _escalate(self) -> None:
        while self._escalation and self._escalation[0][0] <= time.monotonic():
            _, number = self._escalation.pop(0)
            self._signal_all(number)

    def _signal_all(self, number: int) -> None:
        for address in self._running:
            self._tell_nursery(Signal(address=address, number=number))

    def _sample(self) -> None:
        """Reports what each role has used."""
        now_s = time.monotonic()
        if self._clock is None or now_s < self._sample_at_s:
            return
        self._sample_at_s = now_s + SAMPLE_S
        rows = [
            row
            for address, process in self._running.items()
            if process is not None and (row := self._measure(address, process)) is not None
        ]
        self._send_coordinator(Report(address=self._address, records=list(rows)))

    def _measure(self, address: str, process: psutil.Process) -> Resources | None:
        assert self._clock is not None
        try:
            with process.oneshot():
                times = process.cpu_times()
                return Resources(
                    t_s=self._clock.now_s(),
                    host=self._workers[address].host,
                    process=address,
                    pid=process.pid,
                    cpu_s=times.user + times.system,
                    rss_bytes=process.memory_info().rss,
                    num_threads=process.num_threads(),
                )
        except psutil.NoSuchProcess:
            return None  # its exit is about to be reported

    def _send_coordinator(self, message: AnyMessage) -> None:
        if self._sockets is not None and COORDINATOR in {*self._running, *self._remote}:
            try:
                self._sockets.send(COORDINATOR, message)
            except WireError as error:
                print(f"the coordinator does not listen: {error}", file=sys.stderr, flush=True)

    @property
    def _remote(self) -> set[str]:
        """The coordinator, if it runs on another host."""
        return set() if COORDINATOR in self._workers else {COORDINATOR}

    def _report(self, message: Prepared | Refused | Spawned | Failed | Shown | Finished) -> None:
        try:
            write_line(self._out, message)
        except BrokenPipeError:
            self._controller_is_gone = True  # its end of input says the same and ends the run

    def _tell_nursery(self, instruction: Prepare | Spawn | Signal) -> None:
        try:
            write_line(self._to_nursery, instruction)
        except BrokenPipeError:
            print("the nursery is gone", file=sys.stderr, flush=True)  # its output ends, too

    def _unwatch(self, fd: int) -> None:
        if self._sockets is not None:
            self._sockets.unwatch(fd)

    def _close(self) -> None:
        if self._sockets is not None:
            self._sockets.close(linger_ms=0)
        if self._socket_dir:
            shutil.rmtree(self._socket_dir, ignore_errors=True)
        assert self._nursery.stdin is not None
        self._nursery.stdin.close()
        self._nursery.wait()


def _process(pid: int) -> psutil.Process | None:
    try:
        return psutil.Process(pid)
    except psutil.NoSuchProcess:
        return None


def main() -> None:
    """Supervises until the run is over; SIGINT is the controller's business."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    name_process("tj-supervisor")
    Supervisor().run()


if __name__ == "__main__":
    main()
