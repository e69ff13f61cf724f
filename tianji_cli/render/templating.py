"""HTML pages and other texts from templates. Every value given to a page is escaped."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from jinja2.ext import Extension
from markupsafe import Markup

from tianji_cli.render.svg import inline_svg

_LINE_BREAK = re.compile(r"\n *")


class _WithoutLineBreaks(Extension):
    """Templates are written over many lines; in a page their breaks and indents would be spaces."""

    def preprocess(self, source: str, name: str | None, filename: str | None = None) -> str:
        is_page = name is not None and name.endswith(".html")
        return _LINE_BREAK.sub("", source) if is_page else source


_TEMPLATES = Environment(
    loader=PackageLoader("tianji_cli.render"),
    autoescape=True,
    undefined=StrictUndefined,
    extensions=[_WithoutLineBreaks],
    keep_trailing_newline=True,
)
_TEXTS = Environment(
    loader=PackageLoader("tianji_cli.render"),
    autoescape=False,  # these are no HTML
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)


def render(template: str, **values: object) -> str:
    """A page; the same values give the same text.

    Args:
        template: Its file in `templates/`.
        values: Values that the template names. Only `Markup` is taken as HTML.
    """
    return _TEMPLATES.get_template(template).render(values)


def render_text(template: str, **values: object) -> str:
    """A text that is no HTML, such as a program; the same values give the same text.

    Args:
        template: Its file in `templates/`.
        values: Values that the template names, as they are to stand there.
    """
    return _TEXTS.get_template(template).render(values)


def link(path: Path, base: Path) -> str:
    """A file, as a link relative to the page's directory `base`."""
    return quote(os.fsencode(Path(os.path.relpath(path, base)).as_posix()))


@dataclass(frozen=True)
class PageFigure:
    """A figure in a page.

    Attributes:
        name: Unique; the stem of its files.
        title: What it shows, for readers who cannot see it.
        svg: Text of its SVG file.
        png: Its PNG file, to link to.
        pdf: Its PDF file, if it has one.
    """

    name: str
    title: str
    svg: str
    png: Path
    pdf: Path | None = None

    def drawn(self, base: Path, *, prefix: str, caption: str) -> DrawnFigure:
        """As templates take it; `prefix` is unique in the page that lies in `base`."""
        return DrawnFigure(
            svg=inline_svg(self.svg, prefix=prefix, label=self.title),
            caption=caption,
            png_link=link(self.png, base),
            svg_link=link(self.png.with_suffix(".svg"), base),
            pdf_link="" if self.pdf is None else link(self.pdf, base),
        )


@dataclass(frozen=True)
class DrawnFigure:
    """A figure as templates take it."""

    svg: Markup
    caption: str
    png_link: str
    svg_link: str
    pdf_link: str = ""
