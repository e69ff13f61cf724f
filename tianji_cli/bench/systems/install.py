"""Creates virtual environments for the baselines that are on PyPI."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from engine.config.config_file import suggest
from engine.errors import ConfigError, PreflightError
from tianji_cli.bench.systems.probe import VenvBaseline, venv_python
from tianji_cli.bench.systems.registry import SYSTEMS_BY_NAME

INSTALLABLE = {
    name: system for name, system in SYSTEMS_BY_NAME.items() if isinstance(system, VenvBaseline)
}
SIZE = "1 to 5 GB"


def is_installed(name: str, systems_dir: Path) -> bool:
    """Whether `install` has made this environment with all that it makes today."""
    done = systems_dir / name / ".installed"
    packages = list(INSTALLABLE[name].packages)
    return done.is_file() and done.read_text(encoding="utf-8").split() == packages


def install(name: str, systems_dir: Path, say: Callable[[str], None]) -> Path:
    """Creates (or completes) the environment of one baseline and prints each step.

    Returns:
        Its interpreter.

    Raises:
        ConfigError: This baseline is not on PyPI.
        PreflightError: An installation step failed; the end of its output is in the error.
    """
    if name not in INSTALLABLE:
        fix = (
            "docs/bench.md says how to name your own XingTian"
            if name == "xingtian"
            else (suggest(name, INSTALLABLE))
        )
        raise ConfigError(f"{name!r} cannot be installed from here", where="--install", fix=fix)
    place, packages = systems_dir / name, INSTALLABLE[name].packages
    if is_installed(name, systems_dir):
        say(f"{name} is installed in {place}")
        return venv_python(systems_dir, name)
    say(f"installing {name} into {place} ({', '.join(packages)}; {SIZE} of disk)")
    place.parent.mkdir(parents=True, exist_ok=True)
    _run([_base_python(), "-P", "-m", "venv", str(place)], place)
    python = venv_python(systems_dir, name)
    pip = [str(python), "-P", "-m", "pip", "install", "--disable-pip-version-check", "--quiet"]
    _run([*pip, packages[0]], place)  # torch first, so that a CPU build is kept
    _run([*pip, *packages], place)
    (place / ".installed").write_text("\n".join(packages) + "\n", encoding="utf-8")
    return python


def _base_python() -> str:
    """Python 3.11 if there is one: Ray and Sample Factory have wheels for it."""
    return shutil.which("python3.11") or sys.executable


def _run(argv: Sequence[str], place: Path) -> None:
    try:
        result = subprocess.run(argv, capture_output=True, text=True, check=False)
    except OSError as error:
        raise PreflightError(f"{argv[0]} does not start: {error}", where=str(place)) from error
    if result.returncode != 0:
        tail = "\n    ".join((result.stderr or result.stdout).strip().splitlines()[-8:])
        raise PreflightError(
            f"an installation step failed: {' '.join(argv)}\n    {tail}",
            where=str(place),
            fix="fix the cause and run the same command again",
        )
