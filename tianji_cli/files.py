"""Finds experiments and inventories: the user's own first, then those that come with TianJi."""

from __future__ import annotations

from pathlib import Path

from engine.config_file import suggest
from engine.errors import ConfigError

_PACKAGE = Path(__file__).resolve().parent


def find_file(kind: str, name: str) -> Path:
    """The file that a user means by `name`.

    Args:
        kind: `experiments` or `inventories`.
        name: A path, or the bare name of a file that comes with TianJi.

    Raises:
        ConfigError: There is no such file.
    """
    path = Path(name)
    if path.is_file():
        return path
    own = _shipped(kind)
    for candidate in (own / path.name, own / f"{path.name}.yaml"):
        if candidate.is_file() and str(path.parent) in (".", kind):
            return candidate
    known = [file.stem for file in own.glob("*.yaml")]
    raise ConfigError("no such file", where=name, fix=suggest(path.stem, known))


def _shipped(kind: str) -> Path:
    """Beside the packages in a checkout, inside this one in an installed wheel."""
    checkout = _PACKAGE.parent / kind
    return checkout if checkout.is_dir() else _PACKAGE / "data" / kind
