"""Reads untrusted files, so that no pipe or device blocks a command; writes files atomically, so
that a crash leaves no partial one."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from engine.errors import ConfigError

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
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            os.fchmod(file.fileno(), FILE_MODE)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
