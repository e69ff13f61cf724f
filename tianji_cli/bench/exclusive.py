"""A benchmark is run by one command at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from engine.errors import ConfigError, PreflightError
from tianji_cli.storage.locks import locked


@contextmanager
def exclusively(root: Path) -> Iterator[None]:
    """Keeps other commands from running cells of this benchmark meanwhile.

    Args:
        root: Its directory, which exists.

    Raises:
        ConfigError: A command is running it.
        PreflightError: It cannot be locked.
    """
    busy = ConfigError(
        "another command is running it",
        where=str(root),
        fix="wait for it, or interrupt it and continue with --resume",
    )
    with ExitStack() as held:
        try:
            held.enter_context(locked(root, busy))
        except OSError as error:
            raise PreflightError(f"cannot be locked: {error.strerror}", where=str(root)) from error
        yield
