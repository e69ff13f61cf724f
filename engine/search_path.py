"""Where Python looks for modules: the user's working directory comes last.

`python -m` and an empty or relative entry of PYTHONPATH search the working directory before the
standard library, so a `token.py` or a folder `engine/` beside an experiment would be imported
instead of what is meant. Processes of TianJi are started with `python -P` and look for the user's
own modules after all else.
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
"""The directory that this package lies in."""


def working_directory_last() -> None:
    """Moves the working directory to the end of `sys.path`, unless TianJi itself is in it.

    Nor if PYTHONPATH names it in full: then it is meant.
    """
    try:
        here = os.getcwd()
    except OSError:
        return  # it was removed, so nothing is found there
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
    with contextlib.suppress(OSError):  # a directory that was removed holds no module
        return [os.getcwd(), *filter(None, os.environ.get(MODULES_VARIABLE, "").split(os.pathsep))]
    return []


def look_in(directories: Sequence[str]) -> None:
    """Lets Python look for the user's modules there, after everywhere else."""
    _directories.extend(name for name in dict.fromkeys(directories) if name not in _directories)
    sys.path.extend(name for name in _directories if name not in sys.path)


def searched() -> tuple[str, ...]:
    """Where the user's modules are looked for, for a process that is to look there as well."""
    return tuple(_directories)


def module_command(python: str, module: str, *words: str) -> list[str]:
    """The command line that runs a module of TianJi, whatever the working directory contains."""
    return [python, "-P", "-m", module, *words]


def own_path(given: str | None) -> str:
    """PYTHONPATH for a process of TianJi on this machine.

    TianJi's own directory comes first where it is a checkout. An installation is found in any
    case, so its directory is added only where another package of that name would be found before:
    programs that an environment starts inherit this, perhaps other releases of Python.

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
