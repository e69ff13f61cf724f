"""Makes text of files and hosts safe for a terminal: no character can control it."""

from __future__ import annotations

import re
from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

_STEERING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""Control characters except newline and tab, characters that change the writing direction, and
surrogates, which no stream accepts."""
_STEERING_UTF_8 = re.compile(
    rb"\x7f|\xc2[\x80-\x9f]|\xd8\x9c|\xe2\x80[\x8e\x8f\xa8-\xae]|\xe2\x81[\xa6-\xa9]"
)


def plain(text: str) -> str:
    """The same text with control characters escaped as in Python.

    >>> plain("red: \\x1b[31m, a\\tb")
    'red: \\\\x1b[31m, a\\tb'
    """
    return _STEERING.sub(lambda found: ascii(found[0])[1:-1], text)


def plain_json(data: bytes) -> bytes:
    """The same JSON document; characters that JSON allows and terminals interpret are escaped."""
    return _STEERING_UTF_8.sub(lambda found: rb"\u%04x" % ord(found[0].decode()), data)


class PlainConsole(Console):
    """A console that treats text from outside as plain: no terminal codes and no markup in it."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            if segment.control or not _STEERING.search(segment.text):
                yield segment
            else:
                yield Segment(plain(segment.text), segment.style)
