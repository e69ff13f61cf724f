"""A lock on a directory for one command or thread at a time; released when its holder dies."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.errors import ConfigError


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
