"""The modules of PettingZoo's environments, by the names that an `env.id` has for them."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import pkgutil
import re
import shlex
import sys
import warnings
from collections.abc import Iterator
from types import ModuleType

from engine.envs.extras import install_command
from engine.envs.names import MARL_PACKAGES
from engine.errors import ConfigError
from engine.spec import PETTINGZOO

EXTRA = "marl"
MPE = "mpe2"
"""Its environments were PettingZoo's, and are a package of their own now."""
SUCH_AS = "such as pettingzoo:mpe2.simple_spread_v3"
_IS_ENVIRONMENT = re.compile(r"_v\d+$")


def pettingzoo_module(name: str, env_id: str) -> ModuleType:
    """The module of an environment: below PettingZoo, or of another package, such as mpe2.

    Args:
        name: Such as `mpe2.simple_spread_v3` or `butterfly.pistonball_v6`.
        env_id: For errors.

    Raises:
        ConfigError: There is none, or a package is not installed.
    """
    _require(PETTINGZOO, env_id)
    if name.partition(".")[0] == MPE:
        _require(MPE, env_id)
    for full in (f"{PETTINGZOO}.{name}", name):
        if _exists(full):
            return _imported(full, name, env_id)
    raise ConfigError(
        f"neither PettingZoo nor another package has a module {name!r}",
        where="env.id",
        fix=_nearest(name) or SUCH_AS,
    )


def known_environments() -> Iterator[str]:
    """All environments of PettingZoo and mpe2 that are here, such as `mpe2.simple_spread_v3`; an
    installed one can need packages that are not."""
    if _exists(MPE):
        yield from _environments_in(MPE, MPE)
    if _exists(PETTINGZOO):
        path = importlib.import_module(PETTINGZOO).__path__
        for package in pkgutil.iter_modules(path):
            if package.ispkg:
                yield from _environments_in(f"{PETTINGZOO}.{package.name}", package.name)


def usable_environments() -> Iterator[str]:
    """Those of them whose packages are all here; imports them."""
    for name in known_environments():
        full = name if name.partition(".")[0] == MPE else f"{PETTINGZOO}.{name}"
        if _can_be_imported(full):
            yield name


def _can_be_imported(module: str) -> bool:
    with warnings.catch_warnings():  # of old interfaces, which only matter to who uses it
        warnings.simplefilter("ignore")
        try:
            importlib.import_module(module)
        except ImportError:
            return False
    return True


def _imported(full: str, name: str, env_id: str) -> ModuleType:
    try:
        return importlib.import_module(full)
    except ImportError as error:
        family = name.partition(".")[0]
        missing = f"{PETTINGZOO}[{family}]" if full != name else error.name or full
        raise ConfigError(
            f"{env_id} cannot be imported: {error}",
            where="env.id",
            fix=f"{shlex.quote(sys.executable)} -m pip install {shlex.quote(missing)}",
        ) from error


def _require(package: str, env_id: str) -> None:
    if not _exists(package):
        raise ConfigError(
            f"{env_id} needs the package {package}",
            where="env.id",
            fix=install_command(EXTRA, *MARL_PACKAGES),
        )


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # a package above it
        return False


def _environments_in(package: str, called: str) -> Iterator[str]:
    found = importlib.util.find_spec(package)
    for module in pkgutil.iter_modules((found and found.submodule_search_locations) or ()):
        if _IS_ENVIRONMENT.search(module.name):
            yield f"{called}.{module.name}"


def _nearest(name: str) -> str:
    """Advice such as `did you mean 'pettingzoo:mpe2.simple_spread_v3'?`; empty if nothing is near:
    the last part counts, which names an environment."""
    by_last = {known.rpartition(".")[2]: known for known in known_environments()}
    near = difflib.get_close_matches(name.rpartition(".")[2], by_last, n=1, cutoff=0.7)
    return f"did you mean {f'{PETTINGZOO}:{by_last[near[0]]}'!r}?" if near else ""
