"""The live display of a run: one panel on a terminal, otherwise plain lines."""

from __future__ import annotations

import time
from typing import Protocol

from rich.columns import Columns
from rich.console import (
    Console,
    ConsoleDimensions,
    ConsoleOptions,
    ConsoleRenderable,
    Group,
    RenderableType,
    RenderResult,
)
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.segment import ControlType, Segment
from rich.table import Table
from rich.text import Text

from engine.progress import Progress, RoleState
from tianji_cli import units
from tianji_cli.output import Output
from tianji_cli.render.run.rows import shown_within_team

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


PLAIN_EVERY_S = 5.0
_BAR_WIDTH = 40


class Display(Protocol):
    """Shows progress."""

    def show(self, progress: Progress) -> None: ...

    def close(self) -> None: ...


class LiveDisplay:
    """Redraws a panel in place.

    Args:
        console: A terminal.
        title: The run's id.
        on_interrupt: What Ctrl-C does, in words.
    """

    def __init__(self, console: Console, title: str, on_interrupt: str = "stops") -> None:
        self._title = title
        self._on_interrupt = on_interrupt
        # No refresh thread: the display is redrawn when there is new progress.
        self._live = RedrawnLive(console=console, auto_refresh=False, transient=True)
        self._live.start()

    def show(self, progress: Progress) -> None:
        self._live.update(panel(self._title, progress, self._on_interrupt), refresh=True)

    def close(self) -> None:
        self._live.stop()


class PlainDisplay:
    """Prints a line at regular intervals.

    Args:
        console: Where it prints.
        every_s: Least time between two lines, in seconds.
    """

    def __init__(self, console: Console, every_s: float = PLAIN_EVERY_S) -> None:
        self._console = console
        self._every_s = every_s
        self._printed_at_s: float | None = None

    def show(self, progress: Progress) -> None:
        now_s = time.monotonic()
        if self._printed_at_s is not None and now_s < self._printed_at_s + self._every_s:
            return
        self._printed_at_s = now_s
        self._console.print(line(progress), markup=False, soft_wrap=True)

    def close(self) -> None:
        """There is nothing to close."""


class NoDisplay:
    """Shows nothing."""

    def show(self, progress: Progress) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def line(progress: Progress) -> str:
    """One line for logs.

    >>> from engine.progress import Progress
    >>> line(Progress(phase="running", t_s=5.0, env_steps_consumed=1200))
    '[    5.0 s] running   1,200 env steps  collect 0/s  train 0/s  lag -  balance -  return -'
    """
    return (
        f"[{progress.t_s:7.1f} s] {progress.phase:8}"
        f" {progress.env_steps_consumed:>6,} env steps"
        f"  collect {progress.collect_per_s:,.0f}/s  train {progress.trained_per_s:,.0f}/s"
        f"  lag {_number(progress.lag_mean, 1)}  balance {_number(progress.balance, 2)}"
        f"  return {_mean_return(progress)}"
    )


def panel(title: str, progress: Progress, on_interrupt: str = "stops") -> RenderableType:
    """The live panel: progress to each stop rule, rates, lag, balance, version, roles."""
    figures = Table.grid(padding=(0, 2))
    for _ in _LABELS:
        figures.add_column(justify="right", min_width=10)
    figures.add_row(*(Text(label, style="dim") for label in _LABELS))
    figures.add_row(*_cells(progress))
    within_team = shown_within_team(progress.agent_returns, progress.policy_returns)
    named = [Text(f"{what}: {returns}", overflow="fold") for what, returns in within_team]
    body = Group(_rules(progress), *named, Text(), figures, Text(), _roles(progress))
    subtitle = f"{progress.phase} · {progress.t_s:.0f} s · Ctrl-C {on_interrupt}"
    return Panel(body, title=title, subtitle=subtitle, title_align="left", subtitle_align="right")


_LABELS = ("collected/s", "consumed/s", "trained/s", "balance P/C", "lag mean/max", "version")


def _cells(progress: Progress) -> list[str]:
    lag = "-" if progress.lag_max is None else f"{progress.lag_mean:.1f} / {progress.lag_max}"
    return [
        f"{progress.collect_per_s:,.0f}",
        f"{progress.consume_per_s:,.0f}",
        f"{progress.trained_per_s:,.0f}",
        _number(progress.balance, 2),
        lag,
        f"{progress.weights_version:,}",
    ]


def _rules(progress: Progress) -> RenderableType:
    """Progress of each figure that can end the run."""
    rows = Table.grid(padding=(0, 2))
    steps, limit = progress.env_steps_consumed, progress.env_steps_limit
    of_limit = f" of {limit:,}" if limit else ""
    rows.add_row("env steps", _bar(steps, limit), f"{steps:,}{of_limit}")
    threshold = progress.threshold
    of_threshold = f" of {units.short(threshold)}" if threshold is not None else ""
    episodes = f", {units.plural(progress.episodes, 'episode')}" if progress.episodes else ""
    mean = _mean_return(progress)
    whose = f" of {progress.return_of}" if progress.return_of else ""
    text = f"{mean}{of_threshold}{episodes}"
    rows.add_row(f"return{whose}", _bar(progress.return_mean, threshold), text)
    if progress.seconds_limit is not None:
        seconds = f"{progress.t_s:,.0f} of {progress.seconds_limit:,.0f}"
        rows.add_row("seconds", _bar(progress.t_s, progress.seconds_limit), seconds)
    return rows


def _bar(value: float | None, limit: float | None) -> RenderableType:
    """A bar where a share can be told: from zero up to a positive limit."""
    if limit is None or limit <= 0:
        return Text("·" * _BAR_WIDTH, style="dim")
    share = min(max((value or 0.0) / limit, 0.0), 1.0)
    return ProgressBar(total=1.0, completed=share, width=_BAR_WIDTH)


_STATE_STYLES = {"running": "green", "starting": "yellow", "stopped": "dim", "gone": "red"}


def _roles(progress: Progress) -> RenderableType:
    return Columns([_role(address, role) for address, role in progress.roles.items()], (0, 2))


def _role(address: str, role: RoleState) -> Text:
    cores = "" if role.cores is None else f" {role.cores:.0%} of a core"
    dot = ("● ", _STATE_STYLES.get(role.state, ""))
    return Text.assemble(dot, f"{address} {role.state}{cores}", no_wrap=True)


def _mean_return(progress: Progress) -> str:
    value = progress.return_mean
    return "-" if value is None else units.mean_return(value, progress.threshold)


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def display_for(output: Output, title: str, on_interrupt: str = "stops") -> Display:
    """The display that this output allows: none, plain lines, or a panel."""
    if output.verbosity < 0:
        return NoDisplay()
    if output.is_animated:
        return LiveDisplay(output.notes, title, on_interrupt)
    return PlainDisplay(output.notes)
