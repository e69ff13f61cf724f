"""Matplotlib with its defaults, whatever the user has configured; figures import it from here.

On import it reads `matplotlibrc` of the working directory or of the user, and the variables
MPLBACKEND and MATPLOTLIBRC: a notebook's backend ends the import, and a style of the user's changes
every figure, or requires LaTeX. Figures are drawn with Agg and are the same for every user.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_VARIABLES = ("MPLBACKEND", "MATPLOTLIBRC")


@contextmanager
def _without_configuration() -> Iterator[None]:
    """In matplotlib's own data directory, whose `matplotlibrc` holds the defaults: the working
    directory's counts before all others."""
    spec = importlib.util.find_spec("matplotlib")
    assert spec is not None
    assert spec.origin is not None
    kept = {name: os.environ.pop(name) for name in _VARIABLES if name in os.environ}
    here = os.open(".", getattr(os, "O_PATH", os.O_RDONLY))
    try:
        os.chdir(Path(spec.origin).parent / "mpl-data")
        yield
    finally:
        os.fchdir(here)
        os.close(here)
        os.environ.update(kept)


with _without_configuration():
    import matplotlib as mpl
    from matplotlib import style
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import (
        FixedLocator,
        FuncFormatter,
        LogLocator,
        MaxNLocator,
        NullLocator,
        PercentFormatter,
    )

    mpl.use("agg")

__all__ = [
    "Artist",
    "Axes",
    "Figure",
    "FixedLocator",
    "FuncFormatter",
    "LogLocator",
    "MaxNLocator",
    "NullLocator",
    "PercentFormatter",
    "style",
]
