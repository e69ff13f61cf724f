"""Interpreters of systems: where they are, and which packages they have."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import ClassVar

from tianji_cli.bench.systems.base import DriverSystem, Installed, SystemMissingError, SystemOptions
from tianji_cli.bench.tasks.suite import Task

PROBE_S = 120.0
_SCRIPT = """
import importlib, json, platform, sys
def version_of(module):
    try:
        from importlib import metadata  # not in XingTian's Python 3.7
        return metadata.version(module.replace("_", "-"))
    except Exception:
        return "unknown"

found = {"python": platform.python_version()}
for name in sys.argv[1:]:
    module, _, label = name.partition("=")
    loaded = importlib.import_module(module)
    found[label or module] = str(getattr(loaded, "__version__", None) or version_of(module))
print("\\n" + json.dumps(found))
"""


def probe_here(packages: Sequence[str]) -> Installed:
    """The packages of this interpreter; it runs TianJi, so they are installed."""
    versions = {name: metadata.version(name) for name in packages}
    return Installed(
        python=sys.executable, versions={"python": platform.python_version(), **versions}
    )


def probe(python: Path, modules: Sequence[str], *, system: str, fix: str) -> Installed:
    """Imports the modules in the given interpreter.

    Args:
        python: Interpreter.
        modules: `module` or `module=label`.
        system: For the error.
        fix: What to do if it is missing.

    Raises:
        SystemMissingError: No such interpreter, or an import fails.
    """
    if not python.is_file():
        raise SystemMissingError(f"{system} is not installed", where=str(python), fix=fix)
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    try:
        result = subprocess.run(
            [str(python), "-c", _SCRIPT, *modules],
            capture_output=True,
            text=True,
            timeout=PROBE_S,
            check=False,
            env=environment,
            cwd=str(python.parent),
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SystemMissingError(f"{system} does not start: {error}", where=str(python)) from error
    if result.returncode != 0:
        last = (result.stderr.strip().splitlines() or ["no message"])[-1]
        raise SystemMissingError(f"{system} does not import: {last}", where=str(python), fix=fix)
    return Installed(python=str(python), versions=json.loads(result.stdout.splitlines()[-1]))


TORCH = "torch==2.13.0"
GAMES = ("minatar==1.0.15",)
"""What the suites beside the classic ones need, whatever the baseline."""


class VenvBaseline(DriverSystem):
    """A baseline that `tianji bench --install` installs."""

    packages: ClassVar[Sequence[str]]
    """Pinned; PyTorch, where it is one, first, so that a CPU build is kept."""
    modules: ClassVar[Sequence[str]]
    """Imported to see whether all is there; see `probe`."""

    def modules_for(self, tasks: Sequence[Task]) -> Sequence[str]:
        """What these tasks need."""
        return self.modules

    def prepare(self, options: SystemOptions, tasks: Sequence[Task] = ()) -> Installed:
        return probe(
            venv_python(options.systems_dir, self.name),
            self.modules_for(tasks),
            system=self.title,
            fix=f"tianji bench --install {self.name}, or leave it out with --skip-missing",
        )


def venv_python(systems_dir: Path, name: str) -> Path:
    """The interpreter of a virtual environment made by `--install`."""
    return systems_dir / name / "bin" / "python"


def options_of(python: str) -> SystemOptions:
    """Options that find a system again at this interpreter."""
    path = Path(python)
    return SystemOptions(
        systems_dir=path.parent.parent.parent, xingtian_python=path, other_tianji=path
    )
