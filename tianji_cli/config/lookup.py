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
        name: A path, or the name of a file that TianJi ships, such as `cartpole_ppo` or
            `spaces/aim_ppo`.
        also: Other names that the user possibly meant.

    Raises:
        ConfigError: There is no such file.
    """
    path = Path(name)
    if is_file(path):
        return path
    own = shipped(kind)
    parts = path.parts[1:] if path.parts[:1] == (kind,) else path.parts
    if parts and not path.is_absolute() and ".." not in parts:
        inside = own.joinpath(*parts)
        for candidate in (inside, inside.with_name(f"{inside.name}.yaml")):
            if is_file(candidate):
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
