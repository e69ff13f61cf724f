"""Finds experiments and inventories: the user's own first, then those that TianJi ships."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from engine.config.config_file import suggest
from engine.errors import ConfigError

_PACKAGE = Path(__file__).resolve().parents[1]


def is_file(path: Path) -> bool:
    """Whether there is a file; False for impossible names and unreadable directories.

    `Path.is_file` raises for a name that is too long.
    """
    return os.path.isfile(path)


def find_file(kind: str, name: str, also: Iterable[str] = ()) -> Path:
    """The file that a user means by `name`.

    Args:
        kind: `experiments` or `inventories`.
        name: A path, or the bare name of a file that TianJi ships.
        also: Other names that the user possibly meant.

    Raises:
        ConfigError: There is no such file.
    """
    path = Path(name)
    if is_file(path):
        return path
    own = shipped(kind)
    for candidate in (own / path.name, own / f"{path.name}.yaml"):
        if is_file(candidate) and str(path.parent) in (".", kind):
            return candidate
    known = [*(file.stem for file in own.glob("*.yaml")), *also]
    raise ConfigError("no such file", where=name, fix=suggest(path.stem, known))


def shipped(kind: str) -> Path:
    """Directory of files shipped with TianJi: beside the packages in a checkout, inside this one in
    an installed wheel."""
    checkout = _PACKAGE.parent / kind
    return checkout if checkout.is_dir() else _PACKAGE / "data" / kind


def study_file(name: str) -> Path:
    """Path of the study of this name, if TianJi ships it."""
    return shipped("experiments") / name / "study.yaml"


def study_names() -> list[str]:
    """Studies that TianJi ships."""
    return sorted(path.parent.name for path in shipped("experiments").glob("*/study.yaml"))
