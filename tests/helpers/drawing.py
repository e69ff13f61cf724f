"""Reports whose figures are not drawn: drawing takes most of a report's time."""

from __future__ import annotations

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
