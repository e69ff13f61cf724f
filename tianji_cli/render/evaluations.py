"""How an evaluation looks on the terminal: while it runs, and what came out."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from tianji_cli import units
from tianji_cli.output import Output
from tianji_cli.render.live import PLAIN_EVERY_S, RedrawnLive

if TYPE_CHECKING:
    from tianji_cli.evaluation.evaluate import EvaluationProgress
    from tianji_cli.evaluation.records import EvaluatedRun, ReturnStatistics

MIN_NAME_COLUMNS = 12


class EvaluationDisplay:
    """A bar of episodes; plain lines if the output is no terminal.

    Args:
        output: Its notes.
        title: The run.
        num_episodes: All of them.
    """

    def __init__(self, output: Output, title: str, num_episodes: int) -> None:
        self._output = output
        self._title = title
        self._told_s = time.monotonic()
        self._progress: Progress | None = None
        self._bar: TaskID | None = None
        if output.is_animated:
            self._progress = Progress(
                TextColumn("{task.fields[title]}", markup=False),
                BarColumn(bar_width=24),
                TextColumn("{task.completed:.0f}/{task.total:.0f} episodes"),
                TimeElapsedColumn(),
                TextColumn("{task.description}", markup=False),
                console=output.notes,
                transient=True,
            )
            self._progress.live = RedrawnLive(
                console=output.notes,
                transient=True,
                get_renderable=self._progress.get_renderable,
            )
            self._bar = self._progress.add_task("", total=num_episodes, title=title)
            self._progress.start()

    def show(self, progress: EvaluationProgress) -> None:
        """Shows how far it is."""
        if self._progress is not None and self._bar is not None:
            words = progress_words(progress)
            self._progress.update(self._bar, completed=len(progress.rows), description=words)
        elif time.monotonic() - self._told_s >= PLAIN_EVERY_S:
            self._told_s = time.monotonic()
            told = f"{len(progress.rows)} of {units.plural(progress.num_episodes, 'episode')}"
            self._output.say(f"{self._title}: {told}, {progress_words(progress)}")

    def close(self) -> None:
        """Restores the terminal."""
        if self._progress is not None:
            self._progress.stop()


def progress_words(progress: EvaluationProgress) -> str:
    """Mean return and speed so far."""
    rows = progress.rows
    if not rows:
        steps = units.plural(progress.env_steps, "env step")
        return steps if progress.env_steps else "loading"
    mean = sum(row.episode_return for row in rows) / len(rows)
    return f"mean return {units.mean_return(mean)}"


def evaluations_table(evaluations: Sequence[EvaluatedRun]) -> Table:
    """One row for each run; it fits into 80 columns, where a long name takes several lines."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("run", overflow="fold", min_width=MIN_NAME_COLUMNS)
    for heading in ("version", "mean", "std", "IQM", "95 % interval", "min", "max", "length"):
        table.add_column(heading, justify="right", overflow="fold")
    for one in evaluations:
        length = units.number(one.lengths.mean, 1)
        table.add_row(
            Text(one.run_id), units.count(one.version), *_return_cells(one.returns), length
        )
    numbers = {units.plural(one.episodes, "episode") for one in evaluations}
    kinds = {"sampled" if one.is_sampled else "greedy" for one in evaluations}
    words = f"{' or '.join(sorted(numbers))}, {' or '.join(sorted(kinds))} actions"
    table.caption = Text(f"{words}; std: of episodes; length: mean env steps")
    table.caption_justify = "left"
    return table


def _return_cells(returns: ReturnStatistics) -> list[str]:
    iqm = returns.iqm
    bounds = (
        units.NONE
        if iqm.low is None or iqm.high is None
        else f"{units.mean_return(iqm.low)} to {units.mean_return(iqm.high)}"
    )
    return [
        units.mean_return(returns.mean),
        units.mean_return(returns.std),
        units.mean_return(iqm.estimate),
        bounds,
        units.mean_return(returns.min),
        units.mean_return(returns.max),
    ]


def evaluation_notes(evaluation: EvaluatedRun) -> Iterator[str]:
    """What a reader must know before trusting the figures."""
    if evaluation.num_at_limit:
        episodes = units.plural(evaluation.num_at_limit, "episode")
        yield (
            f"{episodes} had not ended after {units.plural(evaluation.max_env_steps, 'env step')}"
            " and counted with the return so far; --max-steps sets the limit"
        )


class PlayDisplay:
    """A line that says how far an episode is, on a terminal; otherwise nothing.

    Args:
        output: Its notes.
        num_episodes: All of them.
    """

    def __init__(self, output: Output, num_episodes: int) -> None:
        self._num_episodes = num_episodes
        self._live: RedrawnLive | None = None
        self._shown_s = 0.0
        if output.is_animated:
            self._live = RedrawnLive(console=output.notes, auto_refresh=False, transient=True)
            self._live.start()

    def show(self, number: int, episode_return: float, length_env_steps: int) -> None:
        """Shows how far the episode of this number is; at most ten times a second."""
        if self._live is None or time.monotonic() - self._shown_s < 0.1:
            return
        self._shown_s = time.monotonic()
        steps = units.plural(length_env_steps, "env step")
        words = f"episode {number + 1} of {self._num_episodes}: {steps}"
        self._live.update(
            Text(f"{words}, return {units.mean_return(episode_return)}"), refresh=True
        )

    def close(self) -> None:
        """Restores the terminal."""
        if self._live is not None:
            self._live.stop()
