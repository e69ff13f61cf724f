"""What a user's own module may register, and how it gets imported. See `docs/extending.md`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from engine.algorithms.registry import register_algorithm
from engine.algorithms.trunks import register_network
from engine.envs.make import register_environment
from engine.envs.torch_envs import register_torch_environment
from engine.errors import ConfigError

__all__ = [
    "import_modules",
    "register_algorithm",
    "register_environment",
    "register_network",
    "register_torch_environment",
]


def import_modules(names: Sequence[str]) -> None:
    """Imports modules by name, from the working directory or wherever Python finds them.

    Raises:
        ConfigError: A module is missing, or an exception left it; the cause is chained.
    """
    here = str(Path.cwd())
    if names and here not in sys.path:
        sys.path.insert(0, here)
    for name in names:
        try:
            importlib.import_module(name)
        except ConfigError:
            raise
        except (Exception, SystemExit, GeneratorExit) as error:
            raise ConfigError(
                f"the module {name!r} cannot be imported: {type(error).__name__}: {error}",
                where="modules",
                fix="it is looked for in the working directory and where Python finds packages",
            ) from error
