"""Detects that a killed role ran out of memory: for an ordinary user, only a counter of the kernel
shows it.

The counter is for the whole machine (`oom_kill` of /proc/vmstat, Linux 4.13), so a kill elsewhere
within the same few seconds looks like one here; the error also gives the memory of the role.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path

from engine.trace.records import Resources

KILLED = "was killed by SIGKILL"
NUM_SAMPLES = 5
_MIB = 2**20


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
