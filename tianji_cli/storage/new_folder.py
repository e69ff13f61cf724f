"""Makes a folder that is either complete or absent."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.errors import ConfigError
from tianji_cli.storage.json_files import writing


def refuse_taken(place: Path, where: str) -> None:
    """Raises ConfigError if there is anything at a place, an empty directory aside."""
    try:
        is_free = not any(place.iterdir())
    except FileNotFoundError:
        is_free = not place.is_symlink()
    except OSError:  # it is no directory, or not one to be read
        is_free = False
    if not is_free:
        raise ConfigError(
            f"{place} is there already, and nothing is overwritten",
            where=where,
            fix="give another place with --out DIR, or remove it",
        )


@contextmanager
def new_folder(place: Path, where: str = "--out") -> Iterator[Path]:
    """An empty folder beside a place, which gets that name when the block ends.

    If the block fails, it is removed, and so are parents that were made for it.

    Args:
        place: Nothing, or an empty directory.
        where: What names it, for errors.

    Raises:
        ConfigError: There is something.
        PreflightError: It cannot be made.
    """
    refuse_taken(place, where)
    place = place.resolve()
    made = [parent for parent in place.parents if not parent.exists()]
    scratch = place.parent / f".{place.name[:100]}.{secrets.token_hex(4)}.tmp"
    try:
        with writing("the folder", place):
            scratch.mkdir(parents=True)
        yield scratch
        with writing("the folder", place):
            refuse_taken(place, where)
            os.rename(scratch, place)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        for parent in made:
            with contextlib.suppress(OSError):
                parent.rmdir()
        raise
