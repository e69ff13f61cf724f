"""Identifies processes: pids are reused, so a process is its pid and its start time.

The only module that tracks, signals and waits for processes by that identity: for runs, the lab and
benchmarks. Signals and waiting use pidfds if the system has them, so that a pid cannot be reused
between a check and a signal.

Every process of a run also carries `TIANJI_RUN=<run id>@<host>:<directory>` in the environment that
it was started with, and its children inherit it; so even a grandchild in another session is found.
"""

from __future__ import annotations

import hashlib
import os
import select
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self, TypeVar

import msgspec
import psutil

RUN_VARIABLE = "TIANJI_RUN"
KILL_S = 5.0
"""Time-out for a killed process to be gone."""
LOOK_AGAIN_S = 0.01
_PROC = Path("/proc")
_PARENT_FIELD, _STARTED_FIELD = 1, 19
"""Indices among the fields after the command's name in `/proc/<pid>/stat`: the parent's pid; start
time in ticks since boot."""


class ProcessId(msgspec.Struct, frozen=True):
    """A process, distinguishable from a later one of the same pid.

    Attributes:
        started: Ticks since boot with /proc, else milliseconds since 1970.
    """

    pid: int
    started: int

    @classmethod
    def of_stat(cls, pid: int, fields: list[str]) -> Self | None:
        """The process of these `stat_fields`; None for a zombie."""
        return None if fields[0] in ("Z", "X") else cls(pid, int(fields[_STARTED_FIELD]))

    @classmethod
    def of(cls, pid: int) -> Self | None:
        """The process that has this pid now; None if there is none, or only a zombie."""
        fields = stat_fields(pid)
        if fields is None:
            return None
        return cls.of_stat(pid, fields) if fields else cls._of_psutil(pid)

    @classmethod
    def _of_psutil(cls, pid: int) -> Self | None:
        try:
            return cls(pid, int(psutil.Process(pid).create_time() * 1000))
        except psutil.Error:
            return None


ProcessT = TypeVar("ProcessT", bound=ProcessId)


def stat_fields(pid: int) -> list[str] | None:
    """The fields after the command's name in `/proc/<pid>/stat`.

    Returns:
        None if there is no such process; an empty list without /proc.
    """
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()
    except OSError:
        return None if _PROC.joinpath("self", "stat").exists() else []


def is_alive(process: ProcessId) -> bool:
    """Whether this process still runs."""
    return type(process).of(process.pid) == process


def send_signal(process: ProcessId, number: int) -> bool:
    """Signals this process, never a later one of the same pid. False if it is gone."""
    try:
        with _opened(process) as descriptor:
            if not is_alive(process):
                return False
            if descriptor is None:
                os.kill(process.pid, number)
            else:
                signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return False
    return True


@contextmanager
def _opened(process: ProcessId) -> Iterator[int | None]:
    """A pidfd of the process with this pid; None without pidfd support or a free descriptor.

    Raises:
        ProcessLookupError: No process has it.
    """
    descriptor = None
    with suppress(AttributeError, OSError):
        descriptor = os.pidfd_open(process.pid)
    if descriptor is None and not psutil.pid_exists(process.pid):
        raise ProcessLookupError(process.pid)
    try:
        yield descriptor
    finally:
        if descriptor is not None:
            os.close(descriptor)


def await_end(processes: Iterable[ProcessT], within_s: float) -> list[ProcessT]:
    """Waits until processes have ended. Zombies count as ended, even if never reaped.

    Returns:
        Those that are still there after the time-out.
    """
    deadline_s = time.monotonic() + within_s
    return [process for process in list(processes) if not _ends(process, deadline_s)]


def _ends(process: ProcessId, deadline_s: float) -> bool:
    """Waits for one process; one after the other, so that one descriptor is enough."""
    with suppress(ProcessLookupError), _opened(process) as descriptor:
        while is_alive(process):
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                return False
            if descriptor is None:
                time.sleep(min(LOOK_AGAIN_S, left_s))  # only our own children send an event
            else:
                poll = select.poll()
                poll.register(descriptor, select.POLLIN)
                poll.poll(left_s * 1000)
    return True


def kill_all(processes: Iterable[ProcessT], within_s: float) -> list[ProcessT]:
    """SIGKILLs processes and waits for their end; returns as `await_end`."""
    known = list(processes)
    for process in known:
        send_signal(process, signal.SIGKILL)
    return await_end(known, within_s)


def end_all(alive: Callable[[], list[ProcessId]], patience_s: float) -> None:
    """Terminates processes, then kills the rest.

    Args:
        alive: Returns those that are left, including new children; called repeatedly.
        patience_s: Time-out of each step.
    """
    for number in (signal.SIGTERM, signal.SIGKILL):
        left = alive()
        for process in left:
            send_signal(process, number)
        deadline_s = time.monotonic() + patience_s
        while left and time.monotonic() < deadline_s:
            await_end(left, min(0.2, deadline_s - time.monotonic()))
            left = alive()
        if not left:
            return


def descendants(ancestors: Iterable[ProcessId]) -> list[ProcessId]:
    """All living descendants of these, with one pass over the system's processes."""
    children: dict[int, list[ProcessId]] = {}
    for process, parent in _living():
        children.setdefault(parent, []).append(process)
    parents = [process for process in ancestors if is_alive(process)]
    found, known = [], set(parents)
    while parents:
        parent_id = parents.pop()
        for child in children.pop(parent_id.pid, ()):
            if child not in known and child.started >= parent_id.started:
                known.add(child)
                found.append(child)
                parents.append(child)
    return found


def _living() -> Iterator[tuple[ProcessId, int]]:
    """Every process of the system, with the pid of its parent."""
    for pid in psutil.pids():
        if fields := stat_fields(pid):
            process, parent = ProcessId.of_stat(pid, fields), int(fields[_PARENT_FIELD])
        else:  # gone, or there is no /proc
            process, parent = ProcessId.of(pid) if fields is not None else None, 0
            with suppress(psutil.Error):
                parent = psutil.Process(pid).ppid()
        if process is not None:
            yield process, parent


def mark(run_id: str, host: str, run_dir: str, attempt: str = "") -> str:
    """The value of `RUN_VARIABLE` for the processes of a run on a host.

    Names are not unique across results directories and users of the machine, so the directory is
    part of the mark. A second `up` can get the same directory before either has created it, and
    the one that fails ends all processes with its own mark; so the attempt is part of it, too.

    Args:
        run_id: For users who inspect the process.
        host: The host's name in the inventory.
        run_dir: The run's directory on that host, absolute.
        attempt: Random digits of one `up`; empty for runs of releases that had none.
    """
    text = os.path.normpath(run_dir) + (f"\0{attempt}" if attempt else "")
    digest = hashlib.blake2b(os.fsencode(text), digest_size=6).hexdigest()
    return f"{run_id}@{host}:{digest}"


def shows_marks() -> bool:
    """Whether this system shows the environment of a process."""
    return _PROC.joinpath("self", "environ").exists()


def find_marked(value: str | None = None, variable: str = RUN_VARIABLE) -> dict[int, str]:
    """Pids of this user's processes that carry a mark, with the mark.

    Args:
        value: Only this mark; None finds all of them.
        variable: Of their environment, that holds the mark.
    """
    found = {}
    wanted = f"{variable}=".encode()
    for entry in _PROC.iterdir() if _PROC.is_dir() else ():
        if not entry.name.isdecimal():
            continue
        try:
            variables = entry.joinpath("environ").read_bytes().split(b"\0")
        except OSError:
            continue  # gone meanwhile, or another user's
        for setting in variables:
            if setting.startswith(wanted):
                text = setting[len(wanted) :].decode("utf-8", "replace")
                if value in (None, text) and ProcessId.of(int(entry.name)) is not None:
                    found[int(entry.name)] = text
    return found


def kill_marked(value: str, spare: set[int], within_s: float = KILL_S) -> list[int]:
    """Kills everything that carries this mark, and waits for its end.

    A process with much memory takes a while to be gone, and others can have started more in the
    meantime. So this repeats until it finds none.

    Args:
        value: From `mark`.
        spare: Pids to leave alone.
        within_s: Time-out.

    Returns:
        The pids that were killed; after a time-out some can be left.
    """
    killed: list[int] = []
    deadline_s = time.monotonic() + within_s
    while True:
        found = [ProcessId.of(pid) for pid in find_marked(value) if pid not in spare]
        processes = [process for process in found if process is not None]
        for process in processes:
            if send_signal(process, signal.SIGKILL) and process.pid not in killed:
                killed.append(process.pid)
        left_s = deadline_s - time.monotonic()
        if not processes or left_s <= 0:
            return killed
        await_end(processes, left_s)
