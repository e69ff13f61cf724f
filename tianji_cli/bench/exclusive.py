"""A benchmark is run by one command at a time."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.errors import ConfigError, PreflightError

LOCK = ".lock"
"""In the benchmark's directory; empty, and held only as long as the command lives."""


@contextmanager
def exclusively(root: Path) -> Iterator[None]:
    """Keeps other commands from running cells of this benchmark meanwhile.

    Args:
        root: Its directory, which exists.

    Raises:
        ConfigError: A command is running it.
        PreflightError: It cannot be locked.
    """
    try:
        file = (root / LOCK).open("ab")
    except OSError as error:
        raise PreflightError(f"cannot be locked: {error.strerror}", where=str(root)) from error
    with file:
        _lock(file.fileno(), root)
        yield


def _lock(descriptor: int, root: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConfigError(
            "another command is running it",
            where=str(root),
            fix="wait for it, or interrupt it and go on with --resume",
        ) from None
    except OSError as error:
        raise PreflightError(f"cannot be locked: {error.strerror}", where=str(root)) from error
