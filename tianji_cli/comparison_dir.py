"""The directory of a comparison of runs: another comparison is never written over."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from engine.errors import ConfigError
from engine.regular_files import read_regular
from tianji_cli.documents import encode_json
from tianji_cli.run_dir import RunPaths, in_unicode

COMPARISON_DIR = "comparison"
COMPARED_FILE = "compared.json"
MAX_COMPARED_BYTES = 1 << 20
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """`compared.json`: which runs the report beside it compares."""

    schema_version: int = 1
    runs: list[str]
    """Their directories, relative to this one, in the report's order."""


def claim_comparison(results: Path, runs: Sequence[RunPaths]) -> Path:
    """The directory of the comparison of these runs: `comparison`, or with a number behind it.

    The same comparison finds its own directory again. What is there and is another one's, or
    nobody knows whose, is left alone.

    Args:
        results: Where it is to lie.
        runs: In the report's order.

    Raises:
        OSError: It cannot be made.
    """
    for number in itertools.count(1):
        place = results / (COMPARISON_DIR if number == 1 else f"{COMPARISON_DIR}-{number}")
        if place.is_symlink():
            continue  # it may lead to where other reports are
        own = Compared(runs=[in_unicode(os.path.relpath(run.root, place)) for run in runs])
        if _is_claimed(place, own):
            return place
    raise AssertionError("there is no last number")


def _is_claimed(place: Path, own: Compared) -> bool:
    """Takes a place that nobody has, by making the file in it, which only one command can."""
    file = place / COMPARED_FILE
    try:
        place.mkdir()
    except FileExistsError:
        if not place.is_dir():
            return False
        if any(place.iterdir()):
            return _compared(file) == own
    try:
        descriptor = os.open(file, _NEW, 0o666)
    except FileExistsError:  # another command was faster
        return _compared(file) == own
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(encode_json(own))
    return True


def _compared(file: Path) -> Compared | None:
    """Whose place it is; None if nothing says so."""
    try:
        return msgspec.json.decode(read_regular(file, MAX_COMPARED_BYTES), type=Compared)
    except (ConfigError, OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
