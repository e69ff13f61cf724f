"""Bounds the logs of a run's processes: a full log is moved aside, once.

A role writes to its log through a descriptor that it keeps open, in append mode. So the log is
copied and emptied instead of renamed; a line written between the two steps is lost. `<name>.log.1`
has the previous contents, so a process never uses more than twice the cap.
"""

from __future__ import annotations

import os
from pathlib import Path

CAP_BYTES = 16 * 2**20
ASIDE = ".1"


def cap_logs(directory: Path, cap_bytes: int = CAP_BYTES) -> list[Path]:
    """Moves the contents of logs that are too long aside.

    Args:
        directory: Of one host's logs.
        cap_bytes: Size limit of a log; this much of the end of a longer one is kept.

    Returns:
        The logs that were emptied.
    """
    emptied = []
    for log in sorted(directory.glob("*.log")):
        size = log.stat().st_size
        if size > cap_bytes:
            _keep_end(log, size - cap_bytes)
            os.truncate(log, 0)
            emptied.append(log)
    return emptied


def _keep_end(log: Path, begin: int) -> None:
    """Copies a log from `begin` on; on a full disk, nothing is kept."""
    aside = log.with_name(log.name + ASIDE)
    temporary = log.with_name(f".{aside.name}.tmp")
    try:
        with log.open("rb") as source, temporary.open("wb") as target:
            source.seek(begin)
            while chunk := source.read(1 << 20):
                target.write(chunk)
        temporary.replace(aside)
    except OSError:
        temporary.unlink(missing_ok=True)
