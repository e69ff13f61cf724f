"""Makes text of files and hosts safe for a terminal: no character can control it."""

from __future__ import annotations

import re
from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

_STEERING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""Control characters but newline and tab, what turns the direction of writing, and halves of
characters, which no stream takes."""
_STEERING_UTF_8 = re.compile(
    rb"\x7f|\xc2[\x80-\x9f]|\xd8\x9c|\xe2\x80[\x8e\x8f\xa8-\xae]|\xe2\x81[\xa6-\xa9]"
)


def plain(text: str) -> str:
    """The same text; what would steer a terminal is shown instead, as Python writes it.

    >>> plain("red: \\x1b[31m, a\\tb")
    'red: \\\\x1b[31m, a\\tb'
    """
    return _STEERING.sub(lambda found: ascii(found[0])[1:-1], text)


def plain_json(data: bytes) -> bytes:
    """The same JSON document; what JSON lets pass and terminals obey is escaped."""
    return _STEERING_UTF_8.sub(lambda found: rb"\u%04x" % ord(found[0].decode()), data)


class PlainConsole(Console):
    """A console that obeys its program and no text that the program was given: neither codes for
    terminals nor what would be markup in it."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            if segment.control or not _STEERING.search(segment.text):
                yield segment
            else:
                yield Segment(plain(segment.text), segment.style)
