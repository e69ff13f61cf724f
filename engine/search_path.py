"""Python's search path: the user's working directory comes last.

`python -m` and an empty or relative entry of PYTHONPATH search the working directory before the
standard library, so a `token.py` or a folder `engine/` beside an experiment would shadow the
intended module. Processes of TianJi are started with `python -P` and search the user's own modules
last.
"""

from __future__ import annotations

import contextlib
import os
import site
import sys
from collections.abc import Mapping, Sequence

OWN_PACKAGES = ("engine", "tianji_cli")
MODULES_VARIABLE = "TIANJI_MODULES"
OWN_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
"""The directory that contains this package."""


def working_directory_last() -> None:
    """Moves the working directory to the end of `sys.path`, unless TianJi itself is in it.

    It also stays if PYTHONPATH names it in full: then that is intended.
    """
    try:
        here = os.getcwd()
    except OSError:
        return  # it was removed
    named = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if here in named or os.path.samefile(here, OWN_ROOT):
        return
    entries = [entry for entry in sys.path if os.path.abspath(entry) == here]
    if entries:
        sys.path[:] = [entry for entry in sys.path if entry not in entries] + [here]


_directories: list[str] = []


def user_directories() -> list[str]:
    """Default directories of the user's modules: the working directory, and what
    `$TIANJI_MODULES` names, as PYTHONPATH does."""
    with contextlib.suppress(OSError):  # a removed directory has no modules
        return [os.getcwd(), *filter(None, os.environ.get(MODULES_VARIABLE, "").split(os.pathsep))]
    return []


def look_in(directories: Sequence[str]) -> None:
    """Appends directories of the user's modules to Python's search path."""
    _directories.extend(name for name in dict.fromkeys(directories) if name not in _directories)
    sys.path.extend(name for name in _directories if name not in sys.path)


def searched() -> tuple[str, ...]:
    """The directories of the user's modules, for child processes."""
    return tuple(_directories)


def module_command(python: str, module: str, *words: str) -> list[str]:
    """The command line that runs a module of TianJi, whatever the working directory contains."""
    return [python, "-P", "-m", module, *words]


def own_path(given: str | None) -> str:
    """PYTHONPATH for a process of TianJi on this machine.

    TianJi's own directory comes first if it is a checkout. An installation is always found, so its
    directory is added only if another package of that name would be found before: programs that an
    environment starts inherit this, possibly with other releases of Python.

    Args:
        given: PYTHONPATH without it.
    """
    entries = [entry for entry in (given or "").split(os.pathsep) if entry]
    is_installed = OWN_ROOT in _installed()
    is_hidden = any(
        os.path.exists(os.path.join(entry, package, "__init__.py"))
        for entry in entries
        for package in OWN_PACKAGES
    )
    if (not is_installed or is_hidden) and OWN_ROOT not in entries[:1]:
        entries.insert(0, OWN_ROOT)
    return os.pathsep.join(entries)


def with_own_path(env: Mapping[str, str]) -> dict[str, str]:
    """An environment whose PYTHONPATH is as above."""
    path = own_path(env.get("PYTHONPATH"))
    return {**env, "PYTHONPATH": path} if path else dict(env)


def _installed() -> set[str]:
    return {*site.getsitepackages(), site.getusersitepackages()}
