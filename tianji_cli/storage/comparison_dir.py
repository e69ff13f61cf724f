"""Records which report a directory holds, so that no other report or file is overwritten."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from engine.errors import ConfigError
from engine.files import read_regular
from tianji_cli.storage.json_files import encode_json
from tianji_cli.storage.run_dir import RunPaths, in_unicode

COMPARISON_DIR = "comparison"
COMPARED_FILE = "compared.json"
REPORT_FILES = ("report.html", "plots", "comparison.json", COMPARED_FILE)
MAX_COMPARED_BYTES = 1 << 20
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """`compared.json`: the runs or benchmarks of the report beside it."""

    schema_version: int = 1
    runs: list[str]
    """Their directories, relative to this one, in the report's order."""


def claim_comparison(results: Path, runs: Sequence[RunPaths]) -> Path:
    """The directory of the comparison of these runs: `comparison`, or with a number behind it.

    The same comparison uses its directory again. Directories of other comparisons, or of unknown
    origin, are left alone.

    Args:
        results: The directory that will contain it.
        runs: In the report's order.

    Raises:
        OSError: It cannot be made.
    """
    for number in itertools.count(1):
        place = results / (COMPARISON_DIR if number == 1 else f"{COMPARISON_DIR}-{number}")
        if place.is_symlink():
            continue  # it can lead to other reports
        own = Compared(runs=[in_unicode(os.path.relpath(run.root, place)) for run in runs])
        if _is_claimed(place, own):
            return place
    raise AssertionError("there is no last number")


def claim_out(out: Path, roots: Sequence[Path]) -> None:
    """Claims the user's directory for the report of these runs or benchmarks.

    It can contain files with names that no report uses, and the same report, which is then
    replaced.

    Args:
        out: It need not exist.
        roots: Directories of the runs or benchmarks, in the report's order.

    Raises:
        ConfigError: It holds another report, or one of unknown origin.
        OSError: It cannot be made or read.
    """
    out, roots = out.resolve(), [root.resolve() for root in roots]
    if [out] == roots:
        return  # the default directory of its report
    own = Compared(runs=[in_unicode(os.path.relpath(root, out)) for root in roots])
    out.mkdir(parents=True, exist_ok=True)
    file = out / COMPARED_FILE
    if not os.path.lexists(file):
        refuse_others(out)
        if _is_made(file, own):
            return
    if _compared(file) != own:
        raise _taken(out)


def refuse_others(out: Path, *more: str) -> None:
    """Raises ConfigError if a report would replace what is in a directory.

    Args:
        more: Names that it writes beside the usual ones.
    """
    if any(os.path.lexists(out / name) for name in (*REPORT_FILES, *more)):
        raise _taken(out)


def _taken(out: Path) -> ConfigError:
    return ConfigError(
        "another report, or a file of that name, is there and is not overwritten",
        where=str(out),
        fix=f"give another --out, or remove {', '.join(REPORT_FILES)} there",
    )


def _is_claimed(place: Path, own: Compared) -> bool:
    """Claims a free directory by creating the file in it, which only one command can do."""
    file = place / COMPARED_FILE
    try:
        place.mkdir()
    except FileExistsError:
        if not place.is_dir():
            return False
        if any(place.iterdir()):
            return _compared(file) == own
    return _is_made(file, own) or _compared(file) == own


def _is_made(file: Path, own: Compared) -> bool:
    """Creates the file that records the owner; False if another command was faster."""
    try:
        descriptor = os.open(file, _NEW, 0o666)
    except FileExistsError:
        return False
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(encode_json(own))
    return True


def _compared(file: Path) -> Compared | None:
    """The recorded owner; None if there is none."""
    try:
        return msgspec.json.decode(read_regular(file, MAX_COMPARED_BYTES), type=Compared)
    except (ConfigError, OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
