"""Identifies processes: pids are reused, so a process is its pid and its start time.

Every process of a run also carries `TIANJI_RUN=<run id>@<host>:<directory>` in the environment that
it was started with, and hands it down; so even a grandchild in a session of its own is known.
"""

from __future__ import annotations

import hashlib
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

import msgspec
import psutil

RUN_VARIABLE = "TIANJI_RUN"
KILL_S = 5.0
"""How long a killed process may take to be gone."""
LOOK_AGAIN_S = 0.01
_PROC = Path("/proc")
_STARTED_FIELD = 19
"""Of what follows the command's name in `/proc/<pid>/stat`: start time in ticks since boot."""


class ProcessId(msgspec.Struct, frozen=True):
    """A process that cannot be mistaken for a later one of the same pid.

    Attributes:
        started: Ticks since boot where there is /proc, milliseconds since 1970 elsewhere.
    """

    pid: int
    started: int

    @classmethod
    def of_stat(cls, pid: int, fields: list[str]) -> ProcessId | None:
        """The process of these fields of `stat_fields`; None if it is only a zombie."""
        return None if fields[0] in ("Z", "X") else cls(pid, int(fields[_STARTED_FIELD]))


def stat_fields(pid: int) -> list[str] | None:
    """What follows the command's name in `/proc/<pid>/stat`.

    Returns:
        None if there is no such process; an empty list where there is no /proc.
    """
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()
    except OSError:
        return None if _PROC.joinpath("self", "stat").exists() else []


def identify(pid: int) -> ProcessId | None:
    """The process that has this pid now; None if there is none, or if it is only a zombie."""
    fields = stat_fields(pid)
    if fields is None:
        return None
    return ProcessId.of_stat(pid, fields) if fields else _identify_with_psutil(pid)


def _identify_with_psutil(pid: int) -> ProcessId | None:
    try:
        return ProcessId(pid, int(psutil.Process(pid).create_time() * 1000))
    except psutil.Error:
        return None


def is_alive(process: ProcessId) -> bool:
    """Whether exactly this process still runs."""
    return identify(process.pid) == process


def send_signal(process: ProcessId, number: int) -> bool:
    """Signals exactly this process. False if it is gone."""
    if not is_alive(process):
        return False
    try:
        os.kill(process.pid, number)
    except ProcessLookupError:
        return False
    return True


def await_end(processes: Iterable[ProcessId], within_s: float) -> list[ProcessId]:
    """Waits until processes have ended. Zombies count as ended, even if never reaped.

    Returns:
        Those that are still there after so many seconds.
    """
    deadline_s = time.monotonic() + within_s
    left = [process for process in processes if is_alive(process)]
    while left and time.monotonic() < deadline_s:
        time.sleep(LOOK_AGAIN_S)  # who is no child of ours sends no event
        left = [process for process in left if is_alive(process)]
    return left


def mark(run_id: str, host: str, run_dir: str, attempt: str = "") -> str:
    """The value of `RUN_VARIABLE` for the processes of a run on a host.

    Names repeat, in other results directories and for other users of the machine, so the directory
    is part of the mark. A second `up` may be given the same one before either has it, and whoever
    fails ends what carries its own mark; so the attempt is a part, too.

    Args:
        run_id: For people who look at the process.
        host: The host's name in the inventory.
        run_dir: The run's directory on that host, absolute.
        attempt: Random digits of one `up`; empty for runs of releases that had none.
    """
    text = os.path.normpath(run_dir) + (f"\0{attempt}" if attempt else "")
    digest = hashlib.blake2b(os.fsencode(text), digest_size=6).hexdigest()
    return f"{run_id}@{host}:{digest}"


def shows_marks() -> bool:
    """Whether this system shows what environment a process was started with."""
    return _PROC.joinpath("self", "environ").exists()


def find_marked(value: str | None = None) -> dict[int, str]:
    """Pids of this user's processes that carry a mark, with the mark.

    Args:
        value: Only this mark; None finds those of all runs.
    """
    found = {}
    wanted = f"{RUN_VARIABLE}=".encode()
    for entry in _PROC.iterdir() if _PROC.is_dir() else ():
        if not entry.name.isdecimal():
            continue
        try:
            variables = entry.joinpath("environ").read_bytes().split(b"\0")
        except OSError:
            continue  # gone meanwhile, or another user's
        for variable in variables:
            if variable.startswith(wanted):
                text = variable[len(wanted) :].decode("utf-8", "replace")
                if value in (None, text) and identify(int(entry.name)) is not None:
                    found[int(entry.name)] = text
    return found


def kill_marked(value: str, spare: set[int], within_s: float = KILL_S) -> list[int]:
    """Kills everything that carries this mark, and waits for its end.

    A signal is only a request: a process of much memory takes a while to be gone, and others may
    have started more meanwhile. So this looks again until it finds nothing.

    Args:
        value: From `mark`.
        spare: Pids to leave alone.
        within_s: How long it may take.

    Returns:
        The pids that were killed; the caller looks again if some may be left.
    """
    killed: list[int] = []
    deadline_s = time.monotonic() + within_s
    while True:
        found = [identify(pid) for pid in find_marked(value) if pid not in spare]
        processes = [process for process in found if process is not None]
        for process in processes:
            if send_signal(process, signal.SIGKILL) and process.pid not in killed:
                killed.append(process.pid)
        left_s = deadline_s - time.monotonic()
        if not processes or left_s <= 0:
            return killed
        await_end(processes, left_s)
