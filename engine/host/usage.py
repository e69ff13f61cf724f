"""The resources used by processes, and whether a killed one ran out of memory.

Usage is one read of `/proc` for each process, since a host can run many. That the kernel killed one
for lack of memory is shown to an ordinary user only by a counter of the whole machine (`oom_kill`
of /proc/vmstat, Linux 4.13), so a kill elsewhere within the same few seconds looks like one here;
the error also gives the memory of the role.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

from engine.host.process_identity import ProcessId, stat_fields
from engine.trace.records import Resources

_UTIME, _STIME, _NUM_THREADS, _RSS = 11, 12, 17, 21
"""Indices of the fields after the command's name in `/proc/<pid>/stat`; see proc(5)."""
_TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
KILLED = "was killed by SIGKILL"
NUM_SAMPLES = 5
_MIB = 2**20


@dataclass(frozen=True)
class Usage:
    """Processor time since its start, memory in RAM, threads."""

    cpu_s: float
    rss_bytes: int
    num_threads: int


def usage_of(process: ProcessId) -> Usage | None:
    """The resources used by this process; None if it is gone."""
    fields = stat_fields(process.pid)
    if fields is None:
        return None
    if not fields:
        return _usage_by_psutil(process)
    if ProcessId.of_stat(process.pid, fields) != process:
        return None
    ticks = int(fields[_UTIME]) + int(fields[_STIME])
    return Usage(ticks * _TICK_S, int(fields[_RSS]) * _PAGE_BYTES, int(fields[_NUM_THREADS]))


def _usage_by_psutil(process: ProcessId) -> Usage | None:
    try:
        if ProcessId.of(process.pid) != process:
            return None
        item = psutil.Process(process.pid)
        times = item.cpu_times()
        return Usage(times.user + times.system, item.memory_info().rss, item.num_threads())
    except psutil.Error:
        return None


def count_oom_kills(vmstat: Path = Path("/proc/vmstat")) -> int | None:
    """Number of processes that the kernel has killed for lack of memory; None if unknown."""
    try:
        lines = vmstat.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = (line.split() for line in lines)
    return next((int(value) for name, value in found if name == "oom_kill"), None)


class MemoryWatch:
    """Samples the counter and the memory of each role.

    Args:
        count: Reads the counter.
    """

    def __init__(self, count: Callable[[], int | None] = count_oom_kills) -> None:
        self._count = count
        # The last two: a sample can be taken between a kill and its report.
        self._counts = deque([count()], maxlen=2)
        self._used: dict[str, deque[int]] = {}

    def note(self, rows: Iterable[Resources]) -> None:
        """Samples the counter and the memory of each role."""
        self._counts.append(self._count())
        for row in rows:
            used = self._used.setdefault(row.process, deque(maxlen=NUM_SAMPLES))
            used.append(row.rss_bytes)

    def explain(self, address: str, cause: str) -> str:
        """The cause of a role's end, with what is known of its memory if it was killed."""
        used = self._used.pop(address, None)
        if cause != KILLED:
            return cause
        before, now = self._counts[0], self._count()
        if before is None or now is None:
            return f"{cause}; the kernel does this when memory runs out"
        if now <= before:
            return cause
        sizes = ", ".join(f"{size / _MIB:.0f}" for size in used or ())
        trend = f"; it used {sizes} MiB in the last samples" if sizes else ""
        return f"{cause}, out of memory by the kernel's count of such kills{trend}"
