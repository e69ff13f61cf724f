"""One line for each compared run, or mean and band of the runs that differ in their seed only."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas as pd

from tianji_cli.analysis.bands import BOOTSTRAP, FEW, MIN_TO_MAX, SeedBand, band_of
from tianji_cli.analysis.curves import RunCurves
from tianji_cli.plotting.figure_style import FAINT, colour_of, dashes_of, short_label
from tianji_cli.plotting.figures import Axes

Runs = Sequence[RunCurves]
FrameOf = Callable[[RunCurves], pd.DataFrame | None]
BAND_ALPHA = 0.2
_SIZES = {MIN_TO_MAX: f"< {FEW}", BOOTSTRAP: f"≥ {FEW}"}


def grouped(runs: Runs) -> list[tuple[str, list[RunCurves]]]:
    """The groups of runs with the same settings, by title; empty unless seeds are compared."""
    groups: dict[str, list[RunCurves]] = {}
    for run in runs:
        groups.setdefault(run.group, []).append(run)
    return [] if "" in groups else list(groups.items())


def draw_lines(
    axes: Axes, runs: Runs, frame_of: FrameOf, x: str, y: str, *, holds_last: bool = False
) -> None:
    """Draws one column of each run over another.

    Args:
        axes: To draw on.
        runs: In the order of their colours.
        frame_of: The table of a run, in which `x` does not fall; None if it has no line here.
        x, y: Its columns.
        holds_last: See `band_of`.
    """
    groups = grouped(runs)
    if not groups:
        for index, run in enumerate(runs):
            frame = frame_of(run)
            if frame is not None:
                _draw_line(axes, frame, (x, y), index, short_label(run.label))
        return
    kinds: set[str] = set()
    for index, (title, members) in enumerate(groups):
        found = [frame for run in members if (frame := frame_of(run)) is not None]
        frames = [frame[[x, y]].dropna() for frame in found]
        band = band_of(frames, x, y, holds_last=holds_last)
        if band is None:
            label = title
            for frame in frames:
                _draw_line(axes, frame, (x, y), index, label)
                label = ""
            continue
        kinds.add(band.kind)
        _draw_band(axes, band, index, _label(title, band, len(members)))
    for kind in sorted(kinds):
        label = f"band: {kind}" if len(kinds) == 1 else f"band, n {_SIZES[kind]}: {kind}"
        axes.fill_between([], [], [], color=FAINT, alpha=BAND_ALPHA, linewidth=0, label=label)


def _label(title: str, band: SeedBand, num_members: int) -> str:
    return title if band.count == num_members else f"{title}, {band.count} of them drawn"


def _draw_line(
    axes: Axes, frame: pd.DataFrame, columns: tuple[str, str], index: int, label: str
) -> None:
    x, y = columns
    axes.plot(
        frame[x],
        frame[y],
        label=label or None,
        color=colour_of(index),
        linestyle=dashes_of(index),
    )


def _draw_band(axes: Axes, band: SeedBand, index: int, label: str) -> None:
    colour = colour_of(index)
    axes.fill_between(band.x, band.low, band.high, color=colour, alpha=BAND_ALPHA, linewidth=0)
    axes.plot(band.x, band.mean, label=label, color=colour, linestyle=dashes_of(index))
