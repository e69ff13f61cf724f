"""Reads untrusted files, so that no pipe or device blocks a command; writes files atomically, so
that a crash leaves no partial one; bounds logs."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from engine.errors import ConfigError

LOG_CAP_BYTES = 16 * 2**20
ASIDE = ".1"
"""Ends the name of the log to which the contents of a full one were moved."""
_CHUNK_BYTES = 1 << 16
_LOOK = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC


def open_regular(path: Path) -> BinaryIO:
    """Opens a file, or what a link leads to, if it is a regular file.

    Raises:
        FileNotFoundError: There is none.
        ConfigError: It is something else, or cannot be opened.
    """
    try:
        descriptor = os.open(path, _LOOK)  # a pipe without a writer would block
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot be read: {reason_of(error)}", where=str(path)) from error
    try:
        is_regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
    except BaseException:
        os.close(descriptor)
        raise
    if not is_regular:
        os.close(descriptor)
        raise ConfigError("cannot be read: it is not a regular file", where=str(path))
    return os.fdopen(descriptor, "rb")


def read_regular(path: Path, max_bytes: int) -> bytes:
    """All of a small file.

    Args:
        path: The file.
        max_bytes: A larger one is not read.

    Raises:
        ConfigError: There is none, it is not a regular file, too large, or cannot be read.
    """
    data = bytearray()
    try:
        with open_regular(path) as file:
            while len(data) <= max_bytes and (chunk := file.read(_CHUNK_BYTES)):
                data += chunk
    except OSError as error:
        raise ConfigError(f"cannot be read: {reason_of(error)}", where=str(path)) from error
    if len(data) > max_bytes:
        raise ConfigError(
            f"cannot be read: it is larger than {max_bytes >> 20} MiB", where=str(path)
        )
    return bytes(data)


def reason_of(error: Exception) -> str:
    """The system's reason why a file cannot be used."""
    return (isinstance(error, OSError) and error.strerror) or str(error)


def read_umask() -> int:
    """The umask of this process, which can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


FILE_MODE = 0o666 & ~read_umask()
"""The umask at the start: the code of an environment can set another one."""


def write_durably(path: Path, data: bytes) -> None:
    """Writes a temporary file, flushes it to disk, and renames it.

    Raises:
        OSError: The disk is full or not writable; an existing file is unchanged.
    """
    with DurableFile(path) as file:
        file.write(data)
        file.finish()


class DurableFile:
    """A file that is written piece by piece, and is there only once it is complete.

    Args:
        path: Its name, or what its temporary name is made of.

    Raises:
        OSError: The disk is full or not writable; an existing file is unchanged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._temporary = path.with_name(f".{path.name}.tmp")

    def __enter__(self) -> DurableFile:
        self._file = self._temporary.open("wb")
        return self

    def __exit__(self, *failure: object) -> None:
        self._file.close()
        self._temporary.unlink(missing_ok=True)

    def write(self, data: bytes) -> None:
        """Adds to the file."""
        self._file.write(data)

    def finish(self, name: str | None = None) -> None:
        """Flushes it to disk and gives it its name, if another than that of its path."""
        os.fchmod(self._file.fileno(), FILE_MODE)
        self._file.flush()
        os.fsync(self._file.fileno())
        self._temporary.replace(self._path.with_name(name) if name else self._path)
        directory = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def cap_logs(directory: Path, cap_bytes: int = LOG_CAP_BYTES) -> list[Path]:
    """Moves the contents of logs that are too long aside, to `<name>.log.1`.

    A role writes through a descriptor that it keeps open, in append mode. So the log is copied and
    emptied instead of renamed; a line written between the two steps is lost. A process never uses
    more than twice the cap.

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
