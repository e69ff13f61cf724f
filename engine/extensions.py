"""The functions with which a user's module registers its parts, and the import of such modules.

See `docs/extending.md`.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from engine.algorithms.registry import register_algorithm
from engine.envs.extras import install_command
from engine.envs.make import register_environment
from engine.envs.names import EXTRAS, MARL_PACKAGES
from engine.envs.teams.registry import register_team
from engine.envs.torch_envs import register_torch_environment
from engine.errors import ConfigError
from engine.layers.trunks import register_network
from engine.search_path import (
    MODULES_VARIABLE,
    OWN_PACKAGES,
    look_in,
    searched,
    user_directories,
)
from engine.spec import Experiment

__all__ = [
    "import_all",
    "import_modules",
    "register_algorithm",
    "register_environment",
    "register_network",
    "register_team",
    "register_torch_environment",
]


def import_all(experiment: Experiment) -> None:
    """Imports all modules that an experiment names; errors as in `import_modules`."""
    for name, where in experiment.named_modules:
        import_modules([name], where)


def import_modules(names: Sequence[str], where: str = "modules") -> None:
    """Imports modules by name, from Python's search path or else from the user's directories.

    These are the working directory, the experiment's and, on another host, the directory to which
    the modules were sent.

    Args:
        names: Dotted names.
        where: The key that lists them, for errors.

    Raises:
        ConfigError: A module is missing, has the name of another one, or raised an exception; the
            cause is chained.
    """
    look_in(user_directories())
    for name in names:
        try:
            importlib.import_module(name)
        except ConfigError:
            raise
        except (Exception, SystemExit, GeneratorExit) as error:
            raise ConfigError(
                f"the module {name!r} cannot be imported: {type(error).__name__}: {error}",
                where=where,
                fix=_fix(name, error),
            ) from error
        _check_meant(name, where)


def _check_meant(name: str, where: str) -> None:
    """Raises ConfigError if a standard module was imported, and the user has one of that name."""
    top = name.partition(".")[0]
    for directory in searched() if top in sys.stdlib_module_names else ():
        for own in (Path(directory) / f"{top}.py", Path(directory) / top / "__init__.py"):
            if own.is_file():
                raise ConfigError(
                    f"{top!r} is a module of Python itself, which hides {own}",
                    where=where,
                    fix="give yours another name",
                )


def _fix(name: str, error: BaseException) -> str:
    if not isinstance(error, ModuleNotFoundError) or error.name is None:
        return "fix that error; --policy local shows the whole traceback"
    top = name.partition(".")[0]
    if top in OWN_PACKAGES:
        return f"{top!r} is TianJi's own package: give yours another name"
    missing = error.name.partition(".")[0]
    packages = {**dict(EXTRAS.values()), **dict.fromkeys(MARL_PACKAGES, "marl")}
    if missing in packages:
        return install_command(packages[missing], missing.replace("_", "-"))
    places = ", ".join(searched())
    if missing != top:
        return f"it imports {error.name!r}: install that into {sys.executable}, or put it beside"
    return (
        f"it is neither in {places} nor where {sys.executable} finds packages;"
        f" {MODULES_VARIABLE}=DIRECTORY names another place"
    )
