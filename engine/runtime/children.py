"""The role processes of one host, as their supervisor sees them: started and signalled by the
nursery, identified and measured here."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

import psutil

from engine.clock import RunClock
from engine.runtime.identity import ProcessId, identify
from engine.runtime.launch import (
    Exited,
    FromNursery,
    LineReader,
    Prepare,
    Signal,
    Spawn,
    WorkerSpec,
    write_line,
)
from engine.runtime.memory_watch import MemoryWatch
from engine.runtime.process import LOG_TAIL_LINES, describe_returncode
from engine.trace.records import Resources

_ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}


class Children:
    """Starts a nursery and keeps the roles that it forks.

    Args:
        env: Added to the environment of all of them; it may give other numbers of threads.
    """

    def __init__(self, env: dict[str, str]) -> None:
        # Not the supervisor's own: its channel has to be able to close while roles go on.
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the nursery
        self._nursery = subprocess.Popen(
            [sys.executable, "-m", "engine.runtime.nursery"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,
            env={**os.environ, **_ONE_THREAD, **env},
        )
        assert self._nursery.stdin is not None
        assert self._nursery.stdout is not None
        self._to_nursery = self._nursery.stdin.fileno()
        self.reader: LineReader[FromNursery] = LineReader(
            self._nursery.stdout.fileno(), FromNursery
        )
        self.specs: dict[str, WorkerSpec] = {}
        self.running: dict[str, psutil.Process | None] = {}
        self._memory = MemoryWatch()

    @property
    def pid(self) -> int:
        """Of the nursery."""
        return self._nursery.pid

    def prepare(self, instruction: Prepare) -> None:
        self._tell(instruction)

    def spawn(self, worker: WorkerSpec) -> None:
        """Starts a role."""
        self.specs[worker.address] = worker
        self.running[worker.address] = None
        self._tell(Spawn(worker=worker))

    def spawned(self, address: str, pid: int) -> None:
        """Notes that the nursery has started a role."""
        try:
            self.running[address] = psutil.Process(pid)
        except psutil.NoSuchProcess:
            return  # its exit is about to be reported

    def exited(self, report: Exited) -> tuple[WorkerSpec, str]:
        """Forgets a role that is gone; returns what it was, and all that is known of why."""
        del self.running[report.address]
        cause = self._memory.explain(report.address, report.cause)
        return self.specs[report.address], cause

    def signal_all(self, number: int) -> None:
        """Signals the process groups of all roles."""
        for address in self.running:
            self._tell(Signal(address=address, number=number))

    def signal_alone(self, address: str, number: int) -> None:
        """Signals a role, but none of its children."""
        self._tell(Signal(address=address, number=number, is_alone=True))

    def identities(self) -> dict[str, ProcessId]:
        """All running roles by address."""
        found = {
            address: identify(process.pid)
            for address, process in self.running.items()
            if process is not None
        }
        return {address: process for address, process in found.items() if process is not None}

    def measure(self, clock: RunClock) -> list[Resources]:
        """What each role has used so far."""
        rows = []
        for address, process in self.running.items():
            if process is not None:
                rows.append(self._measure(address, process, clock))
        measured = [row for row in rows if row is not None]
        self._memory.note(measured)
        return measured

    def _measure(self, address: str, process: psutil.Process, clock: RunClock) -> Resources | None:
        try:
            with process.oneshot():
                times = process.cpu_times()
                return Resources(
                    t_s=clock.now_s(),
                    host=self.specs[address].host,
                    process=address,
                    pid=process.pid,
                    cpu_s=times.user + times.system,
                    rss_bytes=process.memory_info().rss,
                    num_threads=process.num_threads(),
                )
        except psutil.NoSuchProcess:
            return None  # its exit is about to be reported

    def last_words(self) -> tuple[str, list[str]]:
        """How the nursery, which is ending, ended, and what it said last."""
        cause = self._memory.explain("", describe_returncode(self._nursery.wait()))
        self._errors.seek(0)
        text = self._errors.read().decode("utf-8", "replace")
        return cause, text.splitlines()[-LOG_TAIL_LINES:]

    def close(self) -> None:
        """Ends the nursery and every role that is left."""
        assert self._nursery.stdin is not None
        self._nursery.stdin.close()
        self._nursery.wait()

    def _tell(self, instruction: Prepare | Spawn | Signal) -> None:
        try:
            write_line(self._to_nursery, instruction)
        except BrokenPipeError:
            print("the nursery is gone", file=sys.stderr, flush=True)  # its output ends, too
