"""Baselines on PyPI, each in a virtual environment of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from tianji_cli.bench.systems.base import DriverSystem, Installed, SystemOptions
from tianji_cli.bench.systems.probe import probe

TORCH = "torch==2.13.0"
GAMES = ("minatar==1.0.15",)
"""What the suites beside the classic ones need, whatever the baseline."""


class VenvBaseline(DriverSystem):
    """A baseline that `tianji bench --install` installs."""

    packages: ClassVar[Sequence[str]]
    """Pinned; PyTorch first, so that a CPU build is kept."""
    modules: ClassVar[Sequence[str]]
    """Imported to see whether all is there; see `probe`."""

    def prepare(self, options: SystemOptions) -> Installed:
        return probe(
            venv_python(options.systems_dir, self.name),
            self.modules,
            system=self.title,
            fix=f"tianji bench --install {self.name}, or leave it out with --skip-missing",
        )


def venv_python(systems_dir: Path, name: str) -> Path:
    """The interpreter of a virtual environment made by `--install`."""
    return systems_dir / name / "bin" / "python"


def options_of(python: str) -> SystemOptions:
    """Options that find a system again at this interpreter."""
    path = Path(python)
    return SystemOptions(systems_dir=path.parent.parent.parent, xingtian_python=path)
