"""Whether a killed role ran out of memory: the kernel says so in a counter and nowhere else that an
ordinary user may look.

The counter is the machine's (`oom_kill` of /proc/vmstat, Linux 4.13), so a kill elsewhere on it
within the same few seconds looks like one here; what the role used is told beside it.
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
    """How many processes the kernel has killed for lack of memory; None if it does not say."""
    try:
        lines = vmstat.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = (line.split() for line in lines)
    return next((int(value) for name, value in found if name == "oom_kill"), None)


class MemoryWatch:
    """Follows the counter and the memory of each role.

    Args:
        count: Asks the counter.
    """

    def __init__(self, count: Callable[[], int | None] = count_oom_kills) -> None:
        self._count = count
        # The last two: a sample may be taken between a kill and the word of it.
        self._counts = deque([count()], maxlen=2)
        self._used: dict[str, deque[int]] = {}

    def note(self, rows: Iterable[Resources]) -> None:
        """Takes a sample of the counter beside one of what each role uses."""
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
