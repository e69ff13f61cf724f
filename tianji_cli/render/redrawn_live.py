"""A live display that stays correct when its terminal is resized."""

from __future__ import annotations

from rich.console import Console, ConsoleDimensions, ConsoleOptions, ConsoleRenderable, RenderResult
from rich.live import Live
from rich.segment import ControlType, Segment

_CLEAR = "\x1b[H\x1b[J"
"""To the first line, and everything from there erased. Some terminals keep what another code for
clearing the screen erases, in what can be scrolled back to."""


class _ClearScreen:
    """As a renderable that is no text."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Segment(_CLEAR, None, [(ControlType.HOME,)])


class RedrawnLive(Live):
    """Begins on a clear screen when the terminal's size has changed since it drew last.

    A narrower terminal wraps the lines in its own way, so the number of lines to draw over is
    unknown; a larger one brings back lines that had scrolled out.
    """

    _drawn_size: ConsoleDimensions | None = None

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        size, drawn = self.console.size, self._drawn_size
        if not self.console.is_interactive:
            return super().process_renderables(renderables)
        self._drawn_size = size
        ready = super().process_renderables(renderables)
        if drawn in (None, size):
            return ready
        return [_ClearScreen(), *ready[1:]]  # instead of moving up over the lines drawn last
