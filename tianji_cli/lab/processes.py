"""Processes by identity: a pid can be reused by another process, pid and start time cannot.

Waiting for an end is a poll on pidfds, and signals go through them, so that nothing can slip into a
freed pid between a look and a signal.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple

import msgspec

_PROC = Path("/proc")


class LabProcessId(msgspec.Struct, frozen=True):
    """One process of this machine's life.

    Attributes:
        pid: In this machine's own numbering.
        start_ticks: When it started, in clock ticks since boot (`man 5 proc_pid_stat`, field 22).
    """

    pid: int
    start_ticks: int


class ProcessRow(msgspec.Struct, frozen=True, kw_only=True):
    """What /proc says of a process.

    Attributes:
        inner_pid: Its pid in its own pid namespace.
        pid_namespace, net_namespace: `pid:[4026531836]`.
        name: At most 15 characters.
        command: Its arguments, with spaces between them.
    """

    id: LabProcessId
    parent: int
    inner_pid: int
    pid_namespace: str
    net_namespace: str
    name: str
    command: str


class HostProcess(NamedTuple):
    """A process as its host sees it.

    Attributes:
        pid: In the host's own numbering.
        command: Its arguments, with spaces between them.
    """

    pid: int
    command: str


def identify(pid: int) -> LabProcessId | None:
    """The identity of a living process; None if there is none or it is a zombie."""
    stat = _read(pid, "stat")
    if stat is None:
        return None
    state, start_ticks = _parse_stat(stat)[1::2]
    return None if state in ("Z", "X") else LabProcessId(pid, int(start_ticks))


def is_alive(process: LabProcessId | None) -> bool:
    return process is not None and identify(process.pid) == process


def _parse_stat(stat: str) -> tuple[str, str, str, str]:
    """Name, state, parent and start time. The name may hold spaces and brackets."""
    name = stat[stat.index("(") + 1 : stat.rindex(")")]
    fields = stat[stat.rindex(")") + 2 :].split()
    return name, fields[0], fields[1], fields[19]


def read_table() -> list[ProcessRow]:
    """All living processes of this machine that may be looked at, kernel threads aside."""
    rows = (_read_row(int(entry)) for entry in os.listdir(_PROC) if entry.isdigit())
    return [row for row in rows if row is not None]


def _read_row(pid: int) -> ProcessRow | None:
    stat, command, status = (_read(pid, file) for file in ("stat", "cmdline", "status"))
    if stat is None or not command or status is None:
        return None
    name, state, parent, start_ticks = _parse_stat(stat)
    try:
        namespaces = [os.readlink(_PROC / str(pid) / "ns" / kind) for kind in ("pid", "net")]
    except OSError:
        return None
    if state in ("Z", "X"):
        return None
    inner = next(line for line in status.splitlines() if line.startswith("NSpid:"))
    return ProcessRow(
        id=LabProcessId(pid, int(start_ticks)),
        parent=int(parent),
        inner_pid=int(inner.split()[-1]),
        pid_namespace=namespaces[0],
        net_namespace=namespaces[1],
        name=name,
        command=command.rstrip("\0").replace("\0", " "),
    )


def _read(pid: int, file: str) -> str | None:
    try:
        return (_PROC / str(pid) / file).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def child_of(launcher: LabProcessId) -> LabProcessId | None:
    """The first living child of a process."""
    listing = _read(launcher.pid, f"task/{launcher.pid}/children")
    if listing is not None:
        return next((child for pid in listing.split() if (child := identify(int(pid)))), None)
    # A kernel without CONFIG_PROC_CHILDREN.
    return next((row.id for row in read_table() if row.parent == launcher.pid), None)


def inhabitants(init: LabProcessId, table: Sequence[ProcessRow]) -> list[ProcessRow]:
    """Everything in the pid namespace that `init` began, and in namespaces within it."""
    spaces = {row.pid_namespace for row in table if row.id == init}
    found = {row.id.pid for row in table if row.pid_namespace in spaces}
    while more := {row.id.pid for row in table if row.parent in found} - found:
        found |= more
    return [row for row in table if row.id.pid in found]


def kill_all(processes: Iterable[LabProcessId], *, timeout_s: float) -> list[LabProcessId]:
    """SIGKILLs processes and waits for their end.

    Returns:
        Those that are still there after `timeout_s`.
    """
    return _await_end(processes, timeout_s=timeout_s, is_killed=True)


def await_end(processes: Iterable[LabProcessId], *, timeout_s: float) -> list[LabProcessId]:
    """As `kill_all`, but waits for processes that end by themselves."""
    return _await_end(processes, timeout_s=timeout_s, is_killed=False)


def _await_end(
    processes: Iterable[LabProcessId], *, timeout_s: float, is_killed: bool
) -> list[LabProcessId]:
    waiting: dict[int, LabProcessId] = {}
    with ExitStack() as stack:
        poll = select.poll()
        for process in set(processes):
            descriptor = _open(process)
            if descriptor is None:
                continue
            stack.callback(os.close, descriptor)
            if is_killed:
                with suppress(ProcessLookupError):  # then the poll says so
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            poll.register(descriptor, select.POLLIN)
            waiting[descriptor] = process
        deadline_s = time.monotonic() + timeout_s
        while waiting and (left_s := deadline_s - time.monotonic()) > 0:
            for descriptor, _ in poll.poll(left_s * 1000):
                poll.unregister(descriptor)
                reap(waiting.pop(descriptor).pid)
    return list(waiting.values())


def _open(process: LabProcessId) -> int | None:
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return None
    if identify(process.pid) == process:
        return descriptor
    os.close(descriptor)
    return None


def reap(pid: int) -> None:
    """Takes the exit status of an ended child, if it is one of ours."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return
