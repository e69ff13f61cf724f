"""TianJi's own modules, read once for each kind of process, so that it has its own.

Libraries are shared by all of them, as they are by processes that fork; what a module of TianJi has
changed in itself stays in its process.
"""

from __future__ import annotations

import importlib
import sys
from contextlib import suppress
from types import ModuleType

from engine.host.malloc import reading_libraries
from tests.helpers.warm.start import PACKAGES, ROOT, Start

_READ_FIRST = {
    "forkserver": ("engine.host.tether", "engine.runtime.forkserver"),
    "supervisor": ("engine.supervision.supervisor",),
}
"""By kind: what a process of it reads sooner or later."""
_OF_TESTS = ("hypothesis.extra.numpy", "optuna", "pytest", "scipy.stats", "xdist")
_PLUGINS = ("anyio", "_hypothesis", "hypothesis", "xdist")
"""Beginnings of modules' names: pytest warns if they were read before it could rewrite them."""
_modules: dict[str, dict[str, ModuleType]] = {}


def read_all() -> None:
    """Reads all libraries of runs, and TianJi's modules for each kind of process."""
    with reading_libraries():
        for kind, names in _READ_FIRST.items():
            for name in names:
                importlib.import_module(name)
            _modules[kind] = _put_away()
        _read_all_of_tianji()
        _modules["command"] = _modules["worker"] = _put_away()


def _read_all_of_tianji() -> None:
    """As far as it can be read here: each command needs another part, tests are about any."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            is_of_others = "drivers" in path.parts  # for the interpreters of other systems
            if path.name != "__main__.py" and not is_of_others:
                with suppress(ImportError):
                    importlib.import_module(name.removesuffix(".__init__"))
    import typer

    command = typer.main.get_command(sys.modules["tianji_cli.main"].app)
    command.make_context("tianji", ["version"])  # Typer reads Pydantic with its first words


def read_for(start: Start) -> None:
    """Reads libraries that only a process of this kind needs."""
    if start.kind != "worker":
        return
    with reading_libraries():
        for name in _OF_TESTS:
            importlib.import_module(name)
    for name, module in sys.modules.items():
        if name.startswith(_PLUGINS):
            module.__doc__ = "PYTEST_DONT_REWRITE"


def become_kind_of(start: Start) -> None:
    """Gives this process fresh modules of TianJi."""
    _put_away()
    sys.modules.update(_modules[start.kind])


def _put_away() -> dict[str, ModuleType]:
    """Forgets TianJi's modules; returns them."""
    own = [name for name in sys.modules if name.partition(".")[0] in PACKAGES]
    return {name: sys.modules.pop(name) for name in own}
