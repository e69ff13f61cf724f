"""What a person sees while a run is under way: one panel on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from engine.progress import Progress

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
    """

    def __init__(self, console: Console, title: str) -> None:
        self._title = title
        # No refresh thread: the display is redrawn when there is something new.
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._live.start()

    def show(self, progress: Progress) -> None:
        self._live.update(panel(self._title, progress), refresh=True)

    def close(self) -> None:
        self._live.stop()


class PlainDisplay:
    """Prints a line now and then.

    Args:
        console: Where to.
        every_s: At most one line in so many seconds.
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
        """Nothing to tidy up."""


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
        f"  return {_number(progress.return_mean, 1)}"
    )


def panel(title: str, progress: Progress) -> RenderableType:
    """The live panel: progress to the stop rule, rates, lag, balance, return, roles."""
    figures = Table.grid(padding=(0, 2))
    for _ in range(4):
        figures.add_column(justify="right", min_width=12)
    figures.add_row(*(Text(label, style="dim") for label in _LABELS[:4]))
    cells = _cells(progress)
    figures.add_row(*cells[:4])
    figures.add_row()
    figures.add_row(*(Text(label, style="dim") for label in _LABELS[4:]))
    figures.add_row(*cells[4:])
    body = Group(_progress_row(progress), Text(), figures, Text(), _roles(progress))
    subtitle = f"{progress.phase} · {progress.t_s:.0f} s · Ctrl-C stops"
    return Panel(body, title=title, subtitle=subtitle, title_align="left", subtitle_align="right")


_LABELS = (
    "collected/s",
    "consumed/s",
    "trained/s",
    "balance P/C",
    "lag mean / max",
    "version",
    "return (100 ep.)",
    "threshold",
)


def _cells(progress: Progress) -> list[str]:
    lag = "-" if progress.lag_max is None else f"{progress.lag_mean:.1f} / {progress.lag_max}"
    return [
        f"{progress.collect_per_s:,.0f}",
        f"{progress.consume_per_s:,.0f}",
        f"{progress.trained_per_s:,.0f}",
        _number(progress.balance, 2),
        lag,
        f"{progress.weights_version:,}",
        _number(progress.return_mean, 1),
        _number(progress.threshold, 1),
    ]


def _progress_row(progress: Progress) -> RenderableType:
    row = Table.grid(padding=(0, 2))
    bar = ProgressBar(total=1.0, completed=progress.share_done, width=_BAR_WIDTH)
    steps = f"{progress.env_steps_consumed:,} env steps · {progress.episodes:,} episodes"
    row.add_row(bar, f"{progress.share_done:4.0%}", steps)
    return row


_STATE_STYLES = {"running": "green", "starting": "yellow", "stopped": "dim", "gone": "red"}


def _roles(progress: Progress) -> Text:
    text = Text()
    for address, state in progress.roles.items():
        text.append("● ", style=_STATE_STYLES.get(state, ""))
        text.append(f"{address} {state}   ")
    return text


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"
