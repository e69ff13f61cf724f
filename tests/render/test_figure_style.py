"""Figures are the same whatever matplotlib is told by its user."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.helpers.paths import REPOSITORY
from tests.helpers.synthetic_run import write_synthetic_run

ROOT = REPOSITORY
TASTE = """
text.usetex: True
font.size: 31
font.family: cursive
axes.facecolor: red
lines.linewidth: 9
savefig.dpi: 7
savefig.bbox: tight
savefig.transparent: True
svg.fonttype: none
path.sketch: 1, 100, 2
axes.prop_cycle: cycler('color', ['y', 'k'])
image.cmap: hot
"""
NO_SUCH_BACKEND = "module://matplotlib_inline.backend_nowhere"


def figures(root: Path, out: str, **env: str) -> Mapping[str, bytes]:
    """Every figure of a report that is made in `root`."""
    given = {name: value for name, value in os.environ.items() if not name.startswith("M")}
    done = subprocess.run(
        [sys.executable, "-m", "tianji_cli", "report", "run", "--results", ".", "--out", out],
        cwd=root,
        env={**given, "PYTHONPATH": str(ROOT), **env},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "matplotlib" not in done.stderr
    return {path.name: path.read_bytes() for path in sorted((root / out / "plots").iterdir())}


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> tuple[Path, Mapping[str, bytes]]:
    root = tmp_path_factory.mktemp("plain")
    write_synthetic_run(root / "run", num_batches=20)
    return root, figures(root, "plain")


@pytest.mark.parametrize(
    "where",  # matplotlib takes the file that it finds first, in the order of these
    [
        "working directory",
        *(pytest.param(w, marks=pytest.mark.slow) for w in ("MATPLOTLIBRC", "configuration")),
        "backend",
    ],
)
def test_figures_do_not_depend_on_the_users_taste(tmp_path: Path, plain, where: str):
    root, expected = plain
    assert len(expected) > 10
    file, env = tmp_path / "matplotlibrc", {}
    if where == "working directory":
        file = root / "matplotlibrc"
    elif where == "MATPLOTLIBRC":
        env = {"MATPLOTLIBRC": str(file)}
    elif where == "configuration":
        env = {"MPLCONFIGDIR": str(tmp_path)}
    else:
        env = {"MPLBACKEND": "inline"}
    file.write_text(f"backend: {NO_SUCH_BACKEND}\n{TASTE}")
    try:
        found = figures(root, where.replace(" ", "-"), **env)
    finally:
        file.unlink()
    assert found.keys() == expected.keys()
    assert [name for name in found if found[name] != expected[name]] == []
