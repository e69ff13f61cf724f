"""Texts and table rows of a reproduction: the same for the terminal and both pages."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence

from engine.wording import plural
from tianji_cli import units
from tianji_cli.analysis.run import ManifestView
from tianji_cli.bench.published.compare import PublishedComparison, RowResult, RunResult
from tianji_cli.bench.published.records import PublishedManifest, PublishedRun
from tianji_cli.bench.published.suite import PublishedReturn
from tianji_cli.bench.statistics import Interval
from tianji_cli.render.bench.study_text import whole

SHORT_HEADINGS = ("row", "published ± std", "ours ± 95 %", "verdict", "env steps", "time")
HEADINGS = (
    "row",
    "environment",
    "judged by",
    "published",
    "source",
    "ours",
    "ours minus published",
    "verdict",
    "runs",
    "env steps",
    "wall time",
)
RUN_HEADINGS = ("run", "outcome", "return", "env steps", "wall time", "beside")
MEANING = (
    "Published figures are means ± standard deviations as their sources give them: over runs with"
    " different seeds, or, for a single run, over its evaluation episodes. Ours is the mean over"
    " runs with a 95 % interval (Student's t); a run counts with the mean return of the episodes"
    " that judge it. The verdict is that of a 95 % interval of the difference: they agree if it"
    " contains 0; otherwise ours is better or worse. Against a figure over several runs it is that"
    " of Welch; against a figure of one run it is a prediction interval: would one more run like"
    " ours reach that figure? To agree means that no difference was found, and a wide interval"
    " finds few. Of twenty rows that do agree, one is expected to be called better or worse. Env"
    " steps and wall time are medians over runs."
)


def published_text(published: PublishedReturn) -> str:
    """The figure, as it was published.

    >>> published_text(PublishedReturn(mean=490.04, spread=6.12, runs=3))
    '490.04 ± 6.12 (3 runs)'
    """
    over = (
        f"{plural(published.episodes or 0, 'episode')} of 1 run"
        if published.runs == 1
        else plural(published.runs, "run")
    )
    return f"{short_published(published)} ({over})"


def short_published(published: PublishedReturn) -> str:
    return f"{units.short(published.mean)} ± {units.short(published.spread)}"


def return_text(interval: Interval | None) -> str:
    """`487.2 [480.1–494.3]`; negative bounds are easier to read with `to`."""
    if interval is None:
        return units.NONE
    text = units.mean_return(interval.estimate)
    if interval.low is None or interval.high is None:
        return text
    return f"{text} [{units.mean_return(interval.low)} to {units.mean_return(interval.high)}]"


def signed_text(interval: Interval | None) -> str:
    """The same with signs, for a difference.

    >>> signed_text(Interval(estimate=3.0, low=-1.5, high=7.5))
    '+3.00 [-1.50 to +7.50]'
    """
    if interval is None:
        return units.NONE
    text = _signed(interval.estimate)
    if interval.low is None or interval.high is None:
        return text
    return f"{text} [{_signed(interval.low)} to {_signed(interval.high)}]"


def _signed(value: float) -> str:
    return f"{'+' if value > 0 else ''}{units.mean_return(value)}"


def verdict_text(row: RowResult) -> str:
    """The verdict, or why there is none."""
    if row.verdict is not None:
        return row.verdict
    return "none: one run" if row.runs else "none: no run"


def judged_text(row: RowResult) -> str:
    """Which episodes judge a run."""
    kind = "last training" if row.judge == "training" else "evaluation"
    return plural(row.episodes, f"{kind} episode")


def runs_text(row: RowResult) -> str:
    """`3`, or `2 of 3` if some are missing or have failed."""
    count = len(row.runs)
    return str(count) if count == row.num_planned else f"{count} of {row.num_planned}"


def short_row(row: RowResult) -> tuple[str, ...]:
    """In the columns of `SHORT_HEADINGS`, for a narrow terminal."""
    return (
        row.row,
        short_published(row.published),
        _half_width_text(row.ours),
        verdict_text(row) + ("" if len(row.runs) == row.num_planned else f" ({runs_text(row)})"),
        units.NONE if row.env_steps is None else f"{row.env_steps / 1000:,.0f} k",
        units.NONE if row.wall_s is None else f"{row.wall_s / 60:,.1f} min",
    )


def _half_width_text(interval: Interval | None) -> str:
    """A mean and half the width of its interval, which has it in its middle."""
    if interval is None:
        return units.NONE
    text = units.mean_return(interval.estimate)
    if interval.high is None:
        return text
    return f"{text} ± {units.mean_return(interval.high - interval.estimate)}"


def long_row(row: RowResult) -> tuple[str, ...]:
    """In the columns of `HEADINGS`."""
    return (
        row.row,
        row.env_id or units.NONE,
        judged_text(row),
        published_text(row.published),
        row.source.name,
        return_text(row.ours),
        signed_text(row.difference),
        verdict_text(row),
        runs_text(row),
        units.NONE if row.env_steps is None else whole(row.env_steps),
        units.seconds(row.wall_s),
    )


def summary_line(comparison: PublishedComparison) -> str:
    """How many rows agree.

    >>> summary_line(PublishedComparison(bench_id="b", rows=[], warnings=[]))
    'no row has a verdict'
    """
    verdicts = [row.verdict for row in comparison.rows if row.verdict is not None]
    if not verdicts:
        return "no row has a verdict"
    counts = ((verdicts.count(word), word) for word in ("agrees", "better", "worse"))
    parts = ", ".join(f"{count} {word}" for count, word in counts if count)
    return f"{len(verdicts)} of {plural(len(comparison.rows), 'row')} with a verdict: {parts}"


def differences(row: RowResult) -> list[str]:
    """What is known to differ from what was published."""
    changed = [f"{key}: {value}" for key, value in row.settings.items()]
    return [*row.differs, *([f"Changed for this run: {', '.join(changed)}."] if changed else [])]


def run_rows(runs: Iterable[PublishedRun], found: Sequence[RowResult]) -> list[tuple[str, ...]]:
    """One row for each run, in the columns of `RUN_HEADINGS`."""
    results = {(row.row, run.seed): run for row in found for run in row.runs}
    return [
        (
            f"{run.cell.task}, seed {run.cell.seed}",
            "failed" if run.outcome == "failed" else "done",
            *_run_cells(results.get((run.cell.task, run.cell.seed))),
        )
        for run in sorted(runs, key=lambda run: (_place(found, run), run.cell.seed))
    ]


def _place(found: Sequence[RowResult], run: PublishedRun) -> int:
    return [row.row for row in found].index(run.cell.task)


def _run_cells(run: RunResult | None) -> tuple[str, ...]:
    if run is None:
        return (units.NONE,) * (len(RUN_HEADINGS) - 2)
    return (
        units.mean_return(run.return_mean),
        units.count(run.env_steps),
        units.seconds(run.wall_s),
        units.plural(run.num_beside, "run"),
    )


def provenance_rows(
    manifest: PublishedManifest, runs: Iterable[PublishedRun]
) -> list[tuple[str, str]]:
    """Where, when and from which code: the commands that made the runs can be several."""
    machine = manifest.machine
    size = units.size(machine.memory_bytes)
    cores = units.plural(machine.num_cores, "core")
    commits = dict.fromkeys(_commit(run) for run in runs)
    starts = sorted(run.started_at for run in runs if run.started_at)
    versions = ", ".join(f"{name} {version}" for name, version in manifest.versions.items())
    return [
        ("machine", f"{machine.cpu_model}, {cores}, {size}, {machine.os}"),
        ("runs from, to (UTC)", f"{starts[0]}, {starts[-1]}" if starts else units.NONE),
        ("commits", ", ".join(commits) or units.NONE),
        ("packages", versions or units.NONE),
        ("command", shlex.join(manifest.argv)),
    ]


def _commit(run: PublishedRun) -> str:
    view = ManifestView(run.manifest)
    dirty = " with uncommitted changes" if view.text("git", "dirty") == "True" else ""
    return f"{view.text('git', 'commit')[:12] or 'unknown'}{dirty}"


def title_of_agreement(comparison: PublishedComparison) -> str:
    """What the overview shows."""
    verdicts = [row.verdict for row in comparison.rows if row.verdict is not None]
    worse = verdicts.count("worse")
    if not verdicts:
        return "Published figures and ours"
    reached = len(verdicts) - worse
    return f"{reached} of {plural(len(verdicts), 'published figure')} reached or not told apart"


def title_of_learning(comparison: PublishedComparison) -> str:
    """What the learning curves show."""
    num_runs = sum(len(row.runs) for row in comparison.rows)
    return f"Mean training return of {plural(num_runs, 'run')}, and the published figures"
