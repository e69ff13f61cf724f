"""What a process that does not answer is doing: its state and, if it can still say it, its stack.

Every role dumps the stacks of its threads into its log when SIGUSR1 comes; the handler is C code
that runs even while Python hangs in a system call or in a library.
"""

from __future__ import annotations

import faulthandler
import signal
from pathlib import Path

import psutil

from engine.clock import TimerQueue
from engine.control_protocol import Stuck
from engine.host.process_identity import ProcessId
from engine.messages import Report, StackWanted
from engine.supervision.controller_link import ControllerLink
from engine.supervision.coordinator_link import CoordinatorLink
from engine.supervision.host_run import HostRun
from engine.trace.records import Event

STACK_SIGNAL = signal.SIGUSR1
DUMP_S = 1.0
"""How long a process is given to write its stack."""
MAX_LINES = 40
MAX_BYTES = 16_384


def offer_stack() -> None:
    """Makes this process write its stacks to standard error when asked to."""
    faulthandler.register(STACK_SIGNAL, all_threads=True, chain=False)


def report_stack(
    wanted: StackWanted,
    run: HostRun,
    timers: TimerQueue,
    link: ControllerLink,
    coordinator: CoordinatorLink,
) -> None:
    """Asks a role for its stack, and reports the result to user and coordinator a moment later.

    Args:
        wanted: Whose.
        run: Where it runs.
        timers: For that moment.
        link, coordinator: To whom to tell it.
    """
    address, children = wanted.process, run.children
    if address not in children.running:
        return
    log, process = children.log_of(address), children.running[address]
    begin = log.stat().st_size if log.exists() else 0
    children.signal_alone(address, STACK_SIGNAL)

    def tell() -> None:
        state, stack = _state(process), _lines_since(log, begin)
        link.report(Stuck(address=address, silent_s=wanted.silent_s, state=state, stack=stack))
        detail = "\n".join([state, *stack])
        now_s = coordinator.clock.now_s() if coordinator.clock else 0.0
        host = run.prepare.host
        row = Event(t_s=now_s, kind="stack", host=host, role=address, detail=detail)
        coordinator.send(Report(address=coordinator.address, records=[row]))

    timers.add(DUMP_S, tell)


def _state(process: ProcessId | None) -> str:
    try:
        status = "unknown" if process is None else psutil.Process(process.pid).status()
    except psutil.NoSuchProcess:
        return "its process is gone"
    if status in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP):
        return "its process is stopped by a signal or a debugger (kill -CONT resumes it)"
    return f"its process is {status}"


def _lines_since(log: Path, begin: int) -> list[str]:
    """What the log has had since then, as far as it is a stack."""
    try:
        with log.open("rb") as file:
            file.seek(begin)
            text = file.read(MAX_BYTES).decode("utf-8", "replace")
    except OSError as error:
        return [f"(its log cannot be read: {error})"]
    lines = [line.rstrip() for line in text.splitlines()]
    return [line for line in lines if line.startswith(("Thread ", "Current thread ", "  File "))][
        :MAX_LINES
    ]
