"""Files and directories that others can reach too: no link redirects a write or, where it matters,
a read; locks."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from engine.errors import ConfigError, PreflightError
from engine.files import reason_of

OPEN_MODE = 0o666
"""Reduced by the user's umask."""
PRIVATE_MODE = 0o600
_LOOK = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def write_file(path: Path, data: bytes | str, mode: int = OPEN_MODE) -> None:
    """Writes a temporary file and renames it, so that the change is atomic.

    A link in its place is replaced, never followed.

    Args:
        path: The file; its directory must exist.
        data: The contents; text is encoded in UTF-8.
        mode: File mode.

    Raises:
        OSError: It cannot be written; an existing file is unchanged.
    """
    raw = data.encode("utf-8", "backslashreplace") if isinstance(data, str) else data
    beside = path.parent / f".{path.name[:100]}.{secrets.token_hex(4)}.tmp"
    try:
        with os.fdopen(os.open(beside, _NEW, mode), "wb") as file:
            file.write(raw)
        os.replace(beside, path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise


def make_inside(root: Path, directory: Path) -> Path:
    """Creates a directory inside another one; links must not lead out of it.

    Args:
        root: Can itself be a link: this is the user's choice.
        directory: `root`, or below it.

    Raises:
        PreflightError: A link leads elsewhere.
        OSError: It cannot be made.
    """
    root.mkdir(parents=True, exist_ok=True)
    place = root
    for part in directory.relative_to(root).parts:
        place = place / part
        check_inside(root, place)
        place.mkdir(exist_ok=True)
    return directory


def append_descriptor(path: Path) -> int:
    """Opens a file for reading and appending; creates it if it does not exist.

    Raises:
        OSError: It is a link, or cannot be opened.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    return os.open(path, flags, OPEN_MODE)


def named_inside(root: Path, name: str) -> Path:
    """The path of a name from a file, inside a directory.

    Raises:
        ConfigError: The name leads elsewhere, or is invalid.
    """
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\0" in name:
        raise ConfigError(f"{name!r} is not a name that can be there", where=str(root))
    return root.joinpath(*parts)


def open_inside(root: Path, name: str) -> BinaryIO:
    """Opens a regular file below a directory for reading; a link below it is never followed.

    Args:
        root: Can itself be a link: this is the user's choice.
        name: Relative to it.

    Raises:
        FileNotFoundError: There is none.
        ConfigError: It is a link, below one, or no regular file; or it cannot be opened.
    """
    path = named_inside(root, name)
    try:
        return os.fdopen(_descend(root, path.relative_to(root).parts), "rb")
    except FileNotFoundError:
        raise
    except OSError as error:
        is_link = error.errno in (errno.ELOOP, errno.ENOTDIR)
        why = "a link is not followed" if is_link else reason_of(error)
        raise ConfigError(f"cannot be read: {why}", where=str(path)) from error


def _descend(root: Path, parts: tuple[str, ...]) -> int:
    """Opens one directory after the other, so that none can be exchanged for a link meanwhile."""
    place = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts:
            below = os.open(part, _LOOK, dir_fd=place)
            os.close(place)
            place = below
        if not stat.S_ISREG(os.fstat(place).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
    except BaseException:
        os.close(place)
        raise
    return place


def clear(root: Path, directory: Path) -> None:
    """Removes a directory inside another one, whatever its name is.

    Raises:
        PreflightError: It is not inside it.
    """
    check_inside(root, directory)
    if directory.resolve() != root.resolve():
        shutil.rmtree(directory, ignore_errors=True)


def check_inside(root: Path, path: Path) -> None:
    """Raises PreflightError if a link makes a path lead out of a directory."""
    if not path.resolve().is_relative_to(root.resolve()):
        raise PreflightError(
            f"it leads out of {root}, so nothing is written there",
            where=str(path),
            fix="if it is a link, remove it",
        )


@contextmanager
def locked(directory: Path, busy: ConfigError | None = None) -> Iterator[None]:
    """Locks a directory against other processes that lock it in the same way.

    Args:
        directory: Which exists.
        busy: Raised if it is locked; None: waits for it.

    Raises:
        OSError: It cannot be locked.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (fcntl.LOCK_NB if busy else 0))
        except BlockingIOError as error:
            raise busy or error from None
        yield
    finally:
        os.close(descriptor)
