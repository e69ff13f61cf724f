"""The role processes of one host, as their supervisor sees them: started and signalled by the
forkserver, identified and measured here."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from engine.clock import RunClock
from engine.control_protocol import (
    CommonSpec,
    Exited,
    FromForkserver,
    Introduce,
    Prepare,
    Signal,
    Spawn,
    WorkerSpec,
)
from engine.host.end_signals import END_SIGNAL, sigterm_held_back
from engine.host.process import LOG_TAIL_LINES, describe_returncode
from engine.host.process_identity import ProcessId
from engine.host.tether import tethered
from engine.host.usage import MemoryWatch, usage_of
from engine.search_path import with_own_path
from engine.supervision.json_lines import LineReader, NonBlockingWriter
from engine.trace.records import Resources

CLOSE_S = 3.0
"""Time-out for a forkserver to end once it was told to."""
_ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}


class WorkerProcesses:
    """Starts a forkserver and tracks the roles that it forks.

    Args:
        env: Added to the environment of all of them; it can set other numbers of threads.
        fds: Descriptors that the forkserver inherits under the same numbers.
    """

    def __init__(self, env: dict[str, str], fds: tuple[int, ...] = ()) -> None:
        # Not the supervisor's own: its channel must be able to close while roles still run.
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the forkserver
        with sigterm_held_back():  # until it ignores it, which it cannot while it imports torch
            self._forkserver = subprocess.Popen(
                tethered("engine.runtime.forkserver"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                start_new_session=True,
                pass_fds=fds,
                env=with_own_path({**os.environ, **_ONE_THREAD, **env}),
            )
        assert self._forkserver.stdin is not None
        assert self._forkserver.stdout is not None
        # Nothing is dropped: there are as many messages as roles, and some signals.
        self._writer = NonBlockingWriter(
            os.dup(self._forkserver.stdin.fileno()), max_waiting=sys.maxsize
        )
        self._forkserver.stdin.close()
        self.reader: LineReader[FromForkserver] = LineReader(
            self._forkserver.stdout.fileno(), FromForkserver
        )
        self.common: CommonSpec
        self.specs: dict[str, WorkerSpec] = {}
        self.running: dict[str, ProcessId | None] = {}
        """By address; None until the forkserver has forked it."""
        self._memory = MemoryWatch()

    @property
    def pid(self) -> int:
        """Of the forkserver."""
        return self._forkserver.pid

    @property
    def unwritten_fd(self) -> int | None:
        """Descriptor to poll for writing while messages to the forkserver are queued; None if none
        are. The forkserver writes, too, so neither side may block the other."""
        return self._writer.fd

    def flush(self) -> None:
        """Writes queued messages, as far as the forkserver reads them."""
        self._writer.flush()

    def prepare(self, instruction: Prepare) -> None:
        self._writer.put(instruction)

    def introduce(self, common: CommonSpec) -> None:
        """Sends once what all roles have in common."""
        self.common = common
        self._writer.put(Introduce(common=common))

    def spawn(self, worker: WorkerSpec) -> None:
        """Starts a role."""
        self.specs[worker.address] = worker
        self.running[worker.address] = None
        self._writer.put(Spawn(worker=worker))

    def spawned(self, address: str, pid: int) -> None:
        """Records that the forkserver has started a role."""
        self.running[address] = ProcessId.of(pid)  # None: its exit is about to be reported

    def exited(self, report: Exited) -> str:
        """Removes a role that is gone; returns the cause as far as known."""
        del self.running[report.address]
        return self._memory.explain(report.address, report.cause)

    def log_of(self, address: str) -> Path:
        """Path of a role's log."""
        return Path(self.common.log_of(address))

    def end_all(self) -> None:
        """Asks all roles to end, and their children by SIGTERM, which the roles ignore."""
        for address in self.running:
            self._writer.put(Signal(address=address, number=signal.SIGTERM))
            self.signal_alone(address, END_SIGNAL)

    def kill_all(self) -> None:
        """Kills all roles, with their children."""
        for address in self.running:
            self._writer.put(Signal(address=address, number=signal.SIGKILL))

    def signal_alone(self, address: str, number: int) -> None:
        """Signals a role, but none of its children."""
        self._writer.put(Signal(address=address, number=number, is_alone=True))

    def identities(self) -> dict[str, ProcessId]:
        """All running roles by address."""
        return {
            address: process for address, process in self.running.items() if process is not None
        }

    def measure(self, clock: RunClock) -> list[Resources]:
        """The resources used by each role."""
        rows = []
        for address, process in self.running.items():
            used = usage_of(process) if process is not None else None
            if process is None or used is None:
                continue  # its exit is about to be reported
            rows.append(
                Resources(
                    t_s=clock.now_s(),
                    host=self.common.host,
                    process=address,
                    pid=process.pid,
                    cpu_s=used.cpu_s,
                    rss_bytes=used.rss_bytes,
                    num_threads=used.num_threads,
                )
            )
        self._memory.note(rows)
        return rows

    def last_words(self) -> tuple[str, list[str]]:
        """How the forkserver ended, and its last output; it must be ending."""
        cause = self._memory.explain("", describe_returncode(self._forkserver.wait()))
        self._errors.seek(0)
        text = self._errors.read().decode("utf-8", "replace")
        return cause, text.splitlines()[-LOG_TAIL_LINES:]

    def close(self) -> None:
        """Ends the forkserver and every role that is left; kills it if it does not react."""
        self._writer.close()
        try:
            self._forkserver.wait(CLOSE_S)
        except subprocess.TimeoutExpired:
            self._forkserver.kill()  # also a suspended one; its roles die with it
            self._forkserver.wait()
        assert self._forkserver.stdout is not None
        self._forkserver.stdout.close()
        self._errors.close()
