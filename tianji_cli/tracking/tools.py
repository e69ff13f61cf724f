"""The trackers there are, and whether their packages are installed. No package is imported here."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Sequence
from typing import Literal, TypeAlias, get_args

from engine.config.config_file import suggest
from engine.envs.extras import install_command
from engine.errors import ConfigError

Tool: TypeAlias = Literal["tensorboard", "wandb", "mlflow"]
TOOLS: tuple[Tool, ...] = get_args(Tool)
_PACKAGES: dict[Tool, dict[str, str]] = {
    "tensorboard": {"tensorboard": "tensorboard"},
    "wandb": {"wandb": "wandb"},
    "mlflow": {"mlflow": "mlflow-skinny", "sqlalchemy": "sqlalchemy", "alembic": "alembic"},
}
"""By tool, the modules that it needs and the distribution of each."""


def check_tools(names: Sequence[str], where: str) -> tuple[Tool, ...]:
    """The trackers that the user names, each once.

    Args:
        names: As typed.
        where: The option.

    Raises:
        ConfigError: There is no such tracker, or a package of it is not installed.
    """
    found: dict[Tool, None] = {}
    for name in names:
        if name not in TOOLS:
            raise ConfigError(
                f"there is no tracker {name!r}", where=where, fix=suggest(name, TOOLS)
            )
        _require(name, where)
        found[name] = None
    return tuple(found)


def _require(tool: Tool, where: str) -> None:
    packages = _PACKAGES[tool]
    missing = [package for module, package in packages.items() if not _is_installed(module)]
    if missing:
        raise ConfigError(
            f"{tool} needs {_words(missing)}, which {'is' if len(missing) == 1 else 'are'} not"
            " installed",
            where=f"{where} {tool}",
            fix=install_command(tool, *packages.values()),
        )


def _is_installed(module: str) -> bool:
    """A directory of that name, such as the `wandb/` that wandb itself makes, is no package."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return False
    return spec is not None and spec.origin is not None


def _words(names: Iterable[str]) -> str:
    """
    >>> _words(["a"]), _words(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
