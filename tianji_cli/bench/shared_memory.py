"""Shared memory that a system leaves: the files that PyTorch names by the process that made them.

With its sharing strategy `file_system` a tensor lies in `/dev/shm/torch_<pid>_<random>_<number>`. A
manager of PyTorch's removes it once its users are gone, unless the manager is ended before.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping
from pathlib import Path

import msgspec

PLACE = Path("/dev/shm")
SLACK_S = 1.0
"""Tolerance of the start time of a process, which the system counts in clock ticks."""
_NAME = re.compile(r"torch_(\d+)_\d+_\d+")


class LeftFile(msgspec.Struct, frozen=True, kw_only=True):
    """Shared memory that was still there when all processes of a system had ended."""

    name: str
    size_bytes: int


def remove_left(births_s: Mapping[int, float], place: Path = PLACE) -> list[LeftFile]:
    """Removes the shared memory these processes left, and nothing else.

    The name contains the pid, but pids are reused: a file that was last changed before the process
    of that pid started belongs to another process, and so does a file of another user.

    Args:
        births_s: Unix time by pid; all have ended.
        place: The directory of shared memory.

    Returns:
        What was removed.
    """
    found = []
    with contextlib.suppress(OSError):  # there is no such place
        for path in sorted(place.iterdir()):
            match = _NAME.fullmatch(path.name)
            birth_s = births_s.get(int(match[1])) if match else None
            if birth_s is not None and (size_bytes := _remove(path, birth_s)) is not None:
                found.append(LeftFile(name=path.name, size_bytes=size_bytes))
    return found


def _remove(path: Path, birth_s: float) -> int | None:
    """Its size; None if it is not of that process, or cannot be removed."""
    try:
        facts = path.lstat()
        if facts.st_uid != os.geteuid() or facts.st_ctime < birth_s - SLACK_S:
            return None
        path.unlink()
    except OSError:
        return None
    return facts.st_size
