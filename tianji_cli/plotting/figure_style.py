"""Style and saving of every figure. Imports matplotlib only when it saves."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tianji_cli.storage.safe_files import named_inside, write_file

if TYPE_CHECKING:
    from tianji_cli.plotting.figures import Figure

BLUE, VERMILLION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's colours, distinct for any colour vision; without yellow, faint on white."""
DASHES = ("-", "--", "-.", ":")
"""Seven colours and four dashes share no factor: 28 lines differ, and in print neighbours do."""
HATCHES = ("", "///", "...", "xxx", "---", "ooo", "\\\\\\")
INK, FAINT = "#222222", "#6b6b6b"

RC: dict[str, object] = {
    "axes.axisbelow": True,
    "axes.edgecolor": FAINT,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "figure.facecolor": "white",
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.8,
    "hatch.linewidth": 0.6,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "legend.handlelength": 2.8,
    "lines.linewidth": 1.7,
    "pdf.fonttype": 42,  # journals refuse type 3
    "svg.hashsalt": "tianji",
    "text.color": INK,
    "xtick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.color": FAINT,
    "ytick.labelcolor": INK,
}
SIZE_INCHES = (6.4, 3.75)
PNG_DPI = 160
MAX_LABEL = 35


def colour_of(index: int) -> str:
    """Colour of run number `index`."""
    return COLOURS[index % len(COLOURS)]


def dashes_of(index: int) -> str:
    """Line style of run number `index`."""
    return DASHES[index % len(DASHES)]


def short_label(label: str) -> str:
    """A label that leaves space for others; a long one is shortened in the middle.

    >>> short_label("20260131-235959-a_name_that_somebody_found_good")
    '20260131-235959-…omebody_found_good'
    """
    return label if len(label) <= MAX_LABEL else f"{label[:16]}…{label[17 - MAX_LABEL :]}"


@contextmanager
def in_style() -> Iterator[None]:
    """The look of every figure; drawing and saving both happen inside."""
    import numpy as np

    from tianji_cli.plotting.figures import style

    with style.context(RC, after_reset=True), np.errstate(all="ignore"):  # of the largest numbers
        yield


def _take_literally(figure: Figure) -> None:
    """Turns TeX off, except for powers on log axes: names come from files and may look like TeX."""
    from matplotlib.text import Text

    powers = {
        label
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        if axis.get_scale() == "log"
        for label in axis.findobj(Text)
    }
    for text in figure.findobj(Text):
        if isinstance(text, Text) and text not in powers:
            text.set_parse_math(False)


def save(figure: Figure, directory: Path, name: str) -> tuple[Path, Path]:
    """Writes `<name>.png` and `<name>.svg`; the same figure gives the same bytes.

    Raises:
        OSError: The directory cannot be written.
    """
    png, svg = (named_inside(directory, f"{name}.{kind}") for kind in ("png", "svg"))
    drawn = {png: io.BytesIO(), svg: io.BytesIO()}
    with in_style():
        _take_literally(figure)
        figure.savefig(drawn[png], format="png", dpi=PNG_DPI, metadata={"Software": None})
        figure.set_layout_engine("none")  # it has just been laid out
        figure.savefig(
            drawn[svg], format="svg", dpi=PNG_DPI, metadata={"Date": None, "Creator": "TianJi"}
        )
    for path, data in drawn.items():
        write_file(path, data.getvalue())
    return png, svg


def save_pdf(figure: Figure, directory: Path, name: str) -> Path:
    """Writes `<name>.pdf`, for papers; the same figure gives the same bytes.

    Raises:
        OSError: The directory cannot be written.
    """
    path, data = named_inside(directory, f"{name}.pdf"), io.BytesIO()
    with in_style():
        _take_literally(figure)
        figure.savefig(
            data, format="pdf", dpi=PNG_DPI, metadata={"CreationDate": None, "Creator": "TianJi"}
        )
    write_file(path, data.getvalue())
    return path
