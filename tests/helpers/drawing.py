"""Reports whose figures are not drawn: drawing takes most of a report's time."""

from __future__ import annotations

import html
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tianji_cli.plotting import figure_style

if TYPE_CHECKING:
    from tianji_cli.plotting.figures import Figure


def _write_texts(figure: Figure, directory: Path, name: str) -> tuple[Path, Path]:
    """In place of `figure_style.save`: the files of a figure hold its texts, runs' names among
    them, so that figures of other runs have other bytes."""
    from matplotlib.text import Text

    texts = sorted(text.get_text() for text in figure.findobj(Text) if isinstance(text, Text))
    content = f"<svg><title>{html.escape(' '.join(texts))}</title></svg>"
    png, svg = (directory / f"{name}.{kind}" for kind in ("png", "svg"))
    for path in (png, svg):
        path.write_text(content, encoding="utf-8", errors="replace")
    return png, svg


@pytest.fixture
def without_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of all that a report is but the look of its figures."""
    monkeypatch.setattr(figure_style, "save", _write_texts)
