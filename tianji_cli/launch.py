"""Runs a plan on its hosts: prepare, launch, watch, end. No gradients and no terminal here.

A run's processes live in the supervisor's hands, not in this one's. Whatever happens here, the
supervisor sees its standard input end, and ends the run.
"""

from __future__ import annotations

import os
import selectors
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from engine.errors import DeadlineError, RunFailedError, TianJiError
from engine.messages import Message
from engine.progress import Progress
from engine.runtime.launch import (
    Failed,
    Finished,
    FromSupervisor,
    HostFacts,
    KillRun,
    Launch,
    LineReader,
    Prepare,
    Prepared,
    Refused,
    Shown,
    Spawned,
    StopRun,
    write_line,
)
from engine.runtime.ports import find_free_ports
from tianji_cli.connectors.base import Connection
from tianji_cli.plan import Plan, Workers, socket_endpoints, tcp_endpoints

PREPARE_S = 120.0
END_S = 15.0


@dataclass
class Outcome:
    """What happened to a run, beside its summary.

    Attributes:
        failures: In the order in which they happened.
        pids: Of all role processes that were started, by address.
    """

    failures: list[Failed] = field(default_factory=list)
    pids: dict[str, int] = field(default_factory=dict)


class Interrupts:
    """Ctrl-C and its relatives as events: counts them and wakes up a selector."""

    def __init__(self) -> None:
        self.count = 0
        self.fd, self._write_fd = os.pipe()
        os.set_blocking(self.fd, False)
        os.set_blocking(self._write_fd, False)

    @contextmanager
    def installed(self, on_interrupt: Callable[[], None] | None = None) -> Iterator[None]:
        """Handles SIGINT, SIGTERM and SIGHUP within the block."""

        def handle(_number: int, _frame: FrameType | None) -> None:
            self.count += 1
            if on_interrupt is not None:
                on_interrupt()

        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        earlier = {number: signal.signal(number, handle) for number in numbers}
        earlier_fd = signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(earlier_fd)
            for number, handler in earlier.items():
                signal.signal(number, handler)

    def drain(self) -> None:
        """Empties the pipe, so that a selector waits again."""
        try:
            os.read(self.fd, 4096)
        except BlockingIOError:
            return


class Controller:
    """Talks to the supervisor of a run. Use `prepare`, then `run`.

    Args:
        plan: What to run.
        connection: A started supervisor.
        interrupts: The user's Ctrl-C.
    """

    def __init__(self, plan: Plan, connection: Connection, interrupts: Interrupts) -> None:
        self._plan = plan
        self._connection = connection
        self._interrupts = interrupts
        self._reader: LineReader[FromSupervisor] = LineReader(
            connection.from_supervisor, FromSupervisor
        )
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._reader.fd, selectors.EVENT_READ)
        self._selector.register(interrupts.fd, selectors.EVENT_READ)
        self._socket_dir: Path | None = None

    def prepare(self) -> HostFacts:
        """Checks the experiment on the host; nothing of the run has started yet.

        Raises:
            TianJiError: As the host reported it; DeadlineError if it does not answer.
        """
        self._tell(Prepare(experiment=self._plan.experiment, cut=self._plan.graph.cut))
        for report in self._reports(time.monotonic() + PREPARE_S):
            match report:
                case Prepared(facts=facts):
                    return facts
                case Refused():
                    raise refusal(report)
                case Failed():
                    raise self._died(report.cause)
            if self._interrupts.count:
                raise KeyboardInterrupt
        raise DeadlineError(
            f"the host was not ready within {PREPARE_S:.0f} s", where=self._connection.host
        )

    def endpoints(self) -> dict[str, str]:
        """Chooses where the run's servers listen.

        Raises:
            PreflightError: Not enough free ports.
        """
        host = self._plan.inventory.hosts[0]
        if host.ports is not None:
            count = len(self._plan.servers)
            ports = find_free_ports(host.address, range(*host.ports), count)
            return tcp_endpoints(self._plan, host, ports)
        self._socket_dir = Path(tempfile.mkdtemp(prefix="tj-"))
        return socket_endpoints(self._plan, self._socket_dir)

    def run(
        self, workers: Workers, show: Callable[[Progress], None], note: Callable[[str], None]
    ) -> Outcome:
        """Launches the roles and watches until none is left.

        Args:
            workers: From `tianji_cli.plan.wire`.
            show: Called with each snapshot of progress.
            note: Called with words for the user.
        """
        outcome = Outcome()
        ((address, wiring),) = workers.supervisors.items()
        self._tell(
            Launch(
                address=address,
                wiring=wiring,
                socket_dir=str(self._socket_dir or ""),
                workers=workers.workers,
            )
        )
        heard = 0
        try:
            for report in self._reports(None):
                match report:
                    case Spawned():
                        outcome.pids[report.address] = report.pid
                    case Shown(progress=progress):
                        show(progress)
                    case Failed():
                        outcome.failures.append(report)
                    case Finished():
                        break
                if self._interrupts.count > heard:
                    heard = self._interrupts.count
                    self._stop(at_once=heard > 1, note=note)
        except RunFailedError as error:
            lost = Failed(address="the run", cause=f"was lost: {error}", log_tail=[])
            outcome.failures.append(lost)
        return outcome

    def _stop(self, *, at_once: bool, note: Callable[[str], None]) -> None:
        note("ending at once" if at_once else "stopping; Ctrl-C once more ends it at once")
        self._tell(KillRun() if at_once else StopRun())

    def close(self) -> None:
        """Ends the supervisor, and with it whatever is left of the run.

        Raises:
            DeadlineError: It does not end.
        """
        self._selector.close()
        self._connection.close_input()
        has_ended = self._connection.wait(END_S)
        if not has_ended:
            raise DeadlineError("the supervisor does not end", where=self._connection.host)

    def _reports(self, deadline_s: float | None) -> Iterator[FromSupervisor | None]:
        """Yields each report, and None after each interrupt, until the deadline."""
        while True:
            timeout_s = None if deadline_s is None else deadline_s - time.monotonic()
            if timeout_s is not None and timeout_s <= 0:
                return
            ready = {key.fd for key, _ in self._selector.select(timeout_s)}
            if self._interrupts.fd in ready:
                self._interrupts.drain()
                yield None
            yield from self._reader.read()
            if self._reader.at_end:
                raise self._died("its output ended")

    def _died(self, cause: str) -> RunFailedError:
        self._connection.wait(1.0)
        said = self._connection.error_output()
        tail = "".join(f"\n    {text}" for text in said.splitlines()[-20:])
        return RunFailedError(
            f"the node supervisor failed: {cause}{tail}", where=self._connection.host
        )

    def _tell(self, message: Message) -> None:
        try:
            write_line(self._connection.to_supervisor, message)
        except BrokenPipeError:
            raise self._died("it no longer listens") from None


def refusal(report: Refused) -> TianJiError:
    """The error that a host reported, as it was."""
    error = TianJiError(report.what, where=report.where, fix=report.fix)
    for kind in TianJiError.__subclasses__():
        if kind.exit_code == report.exit_code and kind.__name__ != "WireError":
            error = kind(report.what, where=report.where, fix=report.fix)
    return error
