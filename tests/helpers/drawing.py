"""Reports whose figures are not drawn, or only if they are new: drawing takes most of a report's
time."""

from __future__ import annotations

import hashlib
import html
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tianji_cli.plotting import figure_style

if TYPE_CHECKING:
    from tianji_cli.plotting.figures import Figure


def _write_texts(figure: Figure, path: Path) -> Path:
    """In place of a drawing: the file holds the texts of a figure, runs' names among them, so that
    figures of other runs have other bytes."""
    from matplotlib.text import Text

    texts = sorted(text.get_text() for text in figure.findobj(Text) if isinstance(text, Text))
    content = f"<svg><title>{html.escape(' '.join(texts))}</title></svg>"
    path.write_text(content, encoding="utf-8", errors="replace")
    return path


def _save(figure: Figure, directory: Path, name: str) -> tuple[Path, Path]:
    png, svg = (_write_texts(figure, directory / f"{name}.{kind}") for kind in ("png", "svg"))
    return png, svg


def _save_pdf(figure: Figure, directory: Path, name: str) -> Path:
    return _write_texts(figure, directory / f"{name}.pdf")


@pytest.fixture
def without_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of all that a report is but the look of its figures."""
    monkeypatch.setattr(figure_style, "save", _save)
    monkeypatch.setattr(figure_style, "save_pdf", _save_pdf)


def _digest(figure: Figure) -> bytes:
    """Of all that is drawn: equal figures have equal ones."""
    from matplotlib.collections import Collection
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch
    from matplotlib.text import Text

    digest = hashlib.sha256()
    for artist in figure.findobj():
        match artist:
            case Line2D():
                digest.update(artist.get_xydata().tobytes())
            case Collection():
                digest.update(artist.get_offsets().tobytes())
                for path in artist.get_paths():
                    digest.update(path.vertices.tobytes())
            case Patch():
                digest.update(artist.get_path().vertices.tobytes())
            case Text():
                digest.update(artist.get_text().encode("utf-8", "replace"))
    for axes in figure.axes:
        shown = (axes.get_xscale(), axes.get_yscale(), axes.get_xlim(), axes.get_ylim())
        digest.update(repr(shown).encode())
    return digest.digest()


_drawn: set[bytes] = set()


@pytest.fixture
def drawing_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of reports of which each differs from the others in one figure."""
    save = figure_style.save

    def save_new(figure: Figure, directory: Path, name: str) -> tuple[Path, Path]:
        with figure_style.in_style():
            digest = _digest(figure)
        if digest in _drawn:
            return _save(figure, directory, name)
        written = save(figure, directory, name)
        _drawn.add(digest)
        return written

    monkeypatch.setattr(figure_style, "save", save_new)
