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

_PRELOADED = {
    "forkserver": ("engine.host.tether", "engine.runtime.forkserver"),
    "supervisor": ("engine.supervision.supervisor",),
    "command": (
        "tianji_cli.main",
        *(
            f"tianji_cli.commands.{name}"
            for name in ("up", "plan", "benchmarks.bench", "runs", "report", "status")
        ),
    ),
}
"""By kind: what a process of it reads sooner or later."""
_OF_TESTS = ("hypothesis.extra.numpy", "optuna", "pytest", "scipy.stats", "xdist")
_PLUGINS = ("anyio", "_hypothesis", "hypothesis", "xdist")
"""Beginnings of modules' names: pytest warns if they were read before it could rewrite them."""
_modules: dict[str, dict[str, ModuleType]] = {}


def read_all() -> None:
    """Reads all libraries of runs, and TianJi's modules for each of their processes."""
    with reading_libraries():
        _read_of_runs()


def _read_of_runs() -> None:
    for kind, names in _PRELOADED.items():
        for name in names:
            importlib.import_module(name)
        if kind == "command":
            import typer

            typer.main.get_command(sys.modules["tianji_cli.main"].app)  # as the first command does
        _modules[kind] = _put_away()


def read_for(start: Start) -> None:
    """Reads what a process of this kind needs, unless it is there."""
    if start.kind not in _modules:
        with reading_libraries():
            _read_for_tests()
            _modules[start.kind] = _put_away()


def _read_for_tests() -> None:
    """All of TianJi that can be read here, with what it needs: tests are about any of it."""
    for name in _OF_TESTS:
        importlib.import_module(name)
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            is_of_others = "drivers" in path.parts  # for the interpreters of other systems
            if path.name != "__main__.py" and not is_of_others:
                with suppress(ImportError):
                    importlib.import_module(name.removesuffix(".__init__"))
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
