"""Which processes the lab's hosts have, and how they see them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from engine.host.process_identity import ProcessId, kill_all

_PROC = Path("/proc")


class LabProcessId(ProcessId, frozen=True):
    """In the form of the lab's state, which calls its start `start_ticks`."""

    started: int = msgspec.field(name="start_ticks")


class ProcessRow(msgspec.Struct, frozen=True, kw_only=True):
    """Data of /proc about a process.

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
        children = (LabProcessId.of(int(pid)) for pid in listing.split())
        return next((child for child in children if child is not None), None)
    # A kernel without CONFIG_PROC_CHILDREN.
    return next((row.id for row in read_table() if row.parent == launcher.pid), None)


def inhabitants(init: LabProcessId, table: Sequence[ProcessRow]) -> list[ProcessRow]:
    """Everything in the pid namespace that `init` began, and in namespaces within it."""
    spaces = {row.pid_namespace for row in table if row.id == init}
    found = {row.id.pid for row in table if row.pid_namespace in spaces}
    while more := {row.id.pid for row in table if row.parent in found} - found:
        found |= more
    return [row for row in table if row.id.pid in found]


def kill_and_reap(processes: Iterable[LabProcessId], within_s: float) -> list[LabProcessId]:
    """`kill_all`, and reaps those that are children of this process."""
    known = list(processes)
    left = kill_all(known, within_s)
    for process in known:
        reap(process.pid)
    return left


def reap(pid: int) -> None:
    """Reaps an ended process, if it is a child of this one."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return
