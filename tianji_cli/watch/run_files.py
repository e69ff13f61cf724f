"""Looks at the files of runs without following any link: how old they are, and the ends of logs."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from engine.errors import ConfigError
from tianji_cli.analysis.runs import RunRow, row_of
from tianji_cli.plain_text import plain
from tianji_cli.storage.deployment import DEPLOYMENT_NAME
from tianji_cli.storage.run_dir import RunPaths, in_unicode
from tianji_cli.storage.safe_files import open_inside

MAX_LOGS = 500
TAIL_BYTES = 1 << 15
TAIL_LINES = 200
MAX_LINE = 2000
"""Characters of a line of a log."""
Stamp = tuple[tuple[int, int, int], ...]
_Entry = tuple[str, os.stat_result]


class LogRow(msgspec.Struct, frozen=True, kw_only=True):
    """A log: its name, `<host>/<process>.log`; its size; and seconds since it was written to."""

    name: str
    num_bytes: int
    age_s: float


def _entries(directory: Path, is_wanted: Callable[[int], bool]) -> Iterator[_Entry]:
    """What is in a directory, except links; empty if it is not there, or is a link itself."""
    with contextlib.suppress(OSError):
        if directory.is_symlink():
            return
        with os.scandir(directory) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    status = entry.stat(follow_symlinks=False)
                    if is_wanted(status.st_mode):
                        yield entry.name, status


def age_of(paths: RunPaths) -> float | None:
    """Seconds since a trace table, or else the manifest, was written to; None without either."""
    times = [
        status.st_mtime
        for name, status in _entries(paths.trace, stat.S_ISREG)
        if name.endswith((".jsonl", ".jsonl.gz"))
    ]
    with contextlib.suppress(OSError, ValueError):
        times.append(paths.manifest.lstat().st_mtime)
    return max(0.0, time.time() - max(times)) if times else None


def stamp_of(paths: RunPaths) -> Stamp:
    """Changes whenever one of the documents of a run does; empty without a manifest."""
    found = []
    for path in (paths.manifest, paths.summary, paths.root / DEPLOYMENT_NAME):
        try:
            status = path.lstat()
        except (OSError, ValueError):
            if path == paths.manifest:
                return ()
            found.append((0, 0, 0))
        else:
            found.append((status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(found)


def row_of_own(paths: RunPaths) -> RunRow:
    """The row of a run, unless one of its documents is a link: then it is not read."""
    for path in (paths.manifest, paths.summary, paths.root / DEPLOYMENT_NAME):
        if path.is_symlink():
            return RunRow(
                run_id=paths.run_id,
                path=str(paths.root),
                status="unreadable",
                problem=f"{path.name} is a link, which is not followed here",
            )
    return row_of(paths)


def logs_of(paths: RunPaths) -> list[LogRow]:
    """The logs of a run, by host and process."""
    now_s = time.time()
    found = [
        LogRow(
            name=f"{in_unicode(host)}/{in_unicode(log)}",
            num_bytes=status.st_size,
            age_s=max(0.0, now_s - status.st_mtime),
        )
        for host, _ in _entries(paths.logs, stat.S_ISDIR)
        for log, status in _entries(paths.logs / host, stat.S_ISREG)
        if log.endswith(".log")
    ]
    return sorted(found, key=lambda row: row.name)[:MAX_LOGS]


def tail_of(paths: RunPaths, name: str) -> list[str]:
    """The last lines of a log, without control characters.

    Args:
        paths: Of the run.
        name: As `logs_of` gives it.

    Raises:
        ConfigError: There is no log of this name, or it cannot be read.
    """
    parts = name.split("/")
    if len(parts) != 2 or not name.endswith(".log"):
        raise ConfigError(f"{name!r} is not the name of a log")
    try:
        with open_inside(paths.root, f"logs/{name}") as file:
            begin = max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES)
            file.seek(begin)
            data = file.read(TAIL_BYTES)
    except (FileNotFoundError, OSError) as error:
        raise ConfigError(f"there is no log {name!r}") from error
    lines = data.decode("utf-8", "replace").splitlines()
    return [plain(line)[:MAX_LINE] for line in lines[1 if begin else 0 :][-TAIL_LINES:]]
