"""Makes virtual environments for the peers that PyPI has."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from engine.config_file import suggest
from engine.errors import ConfigError, PreflightError
from tianji_cli.baselines import rllib, sample_factory
from tianji_cli.baselines.base import venv_python

TORCH = "torch==2.13.0"
PACKAGES: dict[str, Sequence[str]] = {
    "rllib": (TORCH, f"ray[rllib]=={rllib.VERSION}"),
    "sample-factory": (
        TORCH,
        f"sample-factory=={sample_factory.VERSION}",
        "gymnasium==0.29.1",
        "numpy==1.26.4",
    ),
}
SIZE = "1 to 5 GB"


def install(name: str, peers_dir: Path, say: Callable[[str], None]) -> Path:
    """Makes (or completes) the environment of one peer and tells what it does.

    Returns:
        Its interpreter.

    Raises:
        ConfigError: PyPI does not have this peer.
        PreflightError: An installation step failed; the end of its output is in the error.
    """
    if name not in PACKAGES:
        fix = (
            "docs/bench.md says how to name your own XingTian"
            if name == "xingtian"
            else (suggest(name, PACKAGES))
        )
        raise ConfigError(f"{name!r} cannot be installed from here", where="--install", fix=fix)
    place = peers_dir / name
    done = place / ".installed"
    if done.is_file() and done.read_text(encoding="utf-8").split() == list(PACKAGES[name]):
        say(f"{name} is installed in {place}")
        return venv_python(peers_dir, name)
    say(f"installing {name} into {place} ({', '.join(PACKAGES[name])}; {SIZE} of disk)")
    place.parent.mkdir(parents=True, exist_ok=True)
    _run([_base_python(), "-m", "venv", str(place)], place)
    python = venv_python(peers_dir, name)
    pip = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--quiet"]
    _run([*pip, PACKAGES[name][0]], place)  # torch first, so that a CPU build is kept
    _run([*pip, *PACKAGES[name]], place)
    done.write_text("\n".join(PACKAGES[name]) + "\n", encoding="utf-8")
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
            fix="mend the cause and give the same command again",
        )
