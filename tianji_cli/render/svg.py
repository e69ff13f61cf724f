"""Puts several SVG files into one HTML page."""

from __future__ import annotations

import re

from markupsafe import Markup

_PROLOGUE = re.compile(r"\A.*?(?=<svg\b)", re.DOTALL)
_METADATA = re.compile(r"<metadata>.*?</metadata>\s*", re.DOTALL)
_SIZE = re.compile(r'(<svg\b[^>]*?) width="[^"]*"')
_HEIGHT = re.compile(r'(<svg\b[^>]*?) height="[^"]*"')
_ID = re.compile(r'\bid="([^"]+)"')
_REFERENCE = re.compile(r'(href="#|url\(#)([^")]+)')


def inline_svg(svg: str, *, prefix: str, label: str) -> Markup:
    """An SVG document as an element of an HTML page.

    Ids get a prefix, since those of several figures would collide; the fixed size goes, so that
    the page decides; the label is what a screen reader says.

    Args:
        svg: The file's text, as matplotlib writes it.
        prefix: Unique in the page.
        label: The text alternative.
    """
    body = _METADATA.sub("", _PROLOGUE.sub("", svg, count=1))
    body = _HEIGHT.sub(r"\1", _SIZE.sub(r"\1", body, count=1), count=1)
    body = _ID.sub(rf'id="{prefix}-\1"', body)
    body = _REFERENCE.sub(rf"\g<1>{prefix}-\2", body)
    described = Markup('<svg role="img" aria-label="{}"').format(label)
    return Markup(body.replace("<svg", described, 1).strip())
