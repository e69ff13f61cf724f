"""The live display of a benchmark."""

from __future__ import annotations

import time

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from tianji_cli import units
from tianji_cli.bench.comparison.results import CellResult
from tianji_cli.bench.comparison.run_cell import Seen
from tianji_cli.output import Output
from tianji_cli.render.live import RedrawnLive

PLAIN_EVERY_S = 10.0


class BenchDisplay:
    """One line per finished cell, and below it the progress of the current one.

    Args:
        output: Its notes; it may redraw the last line if they are on a terminal.
        num_cells: All cells of the benchmark.
        num_done: Cells finished by earlier commands.
    """

    def __init__(self, output: Output, num_cells: int, num_done: int) -> None:
        self._console = console = output.notes
        self._num_cells = num_cells
        self._num_done = num_done
        self._is_quiet = output.verbosity < 0
        self.say = output.say
        self._printed_s = time.monotonic()
        self._progress: Progress | None = None
        self._bar: TaskID | None = None
        if output.is_animated:
            self._progress = Progress(
                TextColumn("{task.completed:.0f}/{task.total:.0f} cells"),
                BarColumn(bar_width=24),
                TimeElapsedColumn(),
                TextColumn("{task.description}", markup=False),
                console=console,
                transient=True,
            )
            self._progress.live = RedrawnLive(
                console=console, transient=True, get_renderable=self._progress.get_renderable
            )
            self._bar = self._progress.add_task("", total=num_cells, completed=num_done)
            self._progress.start()

    def show(self, text: str) -> None:
        """Shows the progress of the current cell."""
        if self._progress is not None and self._bar is not None:
            self._progress.update(self._bar, description=text)
        elif not self._is_quiet and time.monotonic() - self._printed_s >= PLAIN_EVERY_S:
            self._printed_s = time.monotonic()
            self._console.print(f"  {text}", markup=False, soft_wrap=True)

    def finished(self, words: str) -> None:
        """A cell has ended."""
        self._num_done += 1
        if self._progress is not None and self._bar is not None:
            self._progress.update(self._bar, completed=self._num_done, description="")
        if self._is_quiet:
            return
        self._printed_s = time.monotonic()
        text = f"[{self._num_done}/{self._num_cells}] {words}"
        self._console.print(text, markup=False, soft_wrap=True)

    def close(self) -> None:
        """Restores the terminal."""
        if self._progress is not None:
            self._progress.stop()


def seen_text(seen: Seen) -> str:
    """
    >>> seen_text(Seen(3.0, None, 0, None))
    'launching, 3 s'
    """
    if seen.trained_s is None:
        return f"launching, {seen.since_launch_s:.0f} s"
    mean = units.mean_return(seen.return_mean)
    return f"{seen.trained_s:.0f} s, {units.plural(seen.env_steps, 'env step')}, return {mean}"


def result_text(result: CellResult) -> str:
    """One line: system, outcome, speed, leftovers."""
    figures, name = result.figures, result.cell.name
    if result.outcome in ("reached", "censored"):
        if result.outcome == "reached":
            when = units.seconds(figures.time_to_threshold_s)
            end = f"reached in {when}, {units.count(figures.steps_to_threshold)} env steps"
        else:
            mean = units.mean_return(figures.return_mean)
            end = f"not reached in {units.seconds(figures.trained_s)} (return {mean})"
        text = f"{name}: {end}; {units.rate(figures.collect_per_s)}"
    else:
        text = f"{name}: {result.outcome}: {result.detail.partition(chr(10))[0]}"
    if result.leftovers:
        ports = sum(len(item.listening) for item in result.leftovers)
        text += f"; left {units.plural(len(result.leftovers), 'process')} and"
        text += f" {units.plural(ports, 'open port')}, now ended"
    return text
