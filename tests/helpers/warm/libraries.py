"""TianJi's own modules, read three times, so that a process of each kind has its own.

Libraries are shared by all of them, as they are by processes that fork; what a module of TianJi has
changed in itself stays in its process.
"""

from __future__ import annotations

import gc
import importlib
import sys
from types import ModuleType

from tests.helpers.warm.start import PACKAGES, Start

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
_modules: dict[str, dict[str, ModuleType]] = {}


def read_all() -> None:
    """Reads all libraries, and TianJi's modules for each kind of process; runs nothing."""
    gc.disable()
    for kind, names in _PRELOADED.items():
        for name in names:
            importlib.import_module(name)
        if kind == "command":
            import typer

            typer.main.get_command(sys.modules["tianji_cli.main"].app)  # as the first command does
        _modules[kind] = _put_away()
    gc.collect()
    gc.freeze()
    gc.enable()


def become_kind_of(start: Start) -> None:
    """Gives this process fresh modules of TianJi."""
    _put_away()
    if start.is_forkserver:
        kind = "forkserver"
    else:
        kind = "supervisor" if start.module.startswith("engine.") else "command"
    sys.modules.update(_modules[kind])


def _put_away() -> dict[str, ModuleType]:
    """Forgets TianJi's modules; returns them."""
    own = [name for name in sys.modules if name.partition(".")[0] in PACKAGES]
    return {name: sys.modules.pop(name) for name in own}
