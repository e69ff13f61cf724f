"""Texts and table rows of a study: the same for the terminal, the page and the Markdown page."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence

from tianji_cli import units
from tianji_cli.bench.statistics import Interval
from tianji_cli.bench.study.compare import StudyComparison, TaskResult, VariantResult
from tianji_cli.bench.study.records import StudyManifest, StudyRun
from tianji_cli.render.run.rows import mean_at_end

HEADINGS = (
    "task",
    "variant",
    "threshold",
    "reached",
    "env steps to threshold",
    "time to threshold",
    "env steps/s",
    "final return",
    "return over env steps",
    "return over time",
    "lag mean",
    "lag max",
    "dropped",
)
SHORT_HEADINGS = (
    "variant",
    "reached",
    "env steps",
    "time",
    "env steps/s",
    "final return",
    "lag mean",
    "lag max",
)
MEANING = (
    "Medians over seeds with 95 % bootstrap intervals. Env steps are those collected until the"
    " coordinator knew that the threshold was reached, time counts from the start of training,"
    " env steps/s are those consumed in the steady window, lag is in weights versions. A run that"
    " did not reach its threshold counts as longer than any that did. The final return is the mean"
    " of a run's last training episodes when it ended, so it may lie below a threshold that was"
    " reached before; the return over env steps is the area under its learning"
    " curve, divided by the env steps that the curves of all runs cover; the return over time is"
    " the same over seconds of training."
)
RUN_HEADINGS = (
    "run",
    "outcome",
    "env steps to threshold",
    "time to threshold",
    "wall time",
    "env steps/s",
    "final return",
    "lag max",
)
_RATIOS = {
    "steps_to_threshold": "env steps to the threshold",
    "time_to_threshold_s": "time to the threshold",
    "consume_per_s": "throughput",
}
_RETURNS = {
    "final_return": "final return",
    "mean_return": "return over env steps",
    "mean_return_over_time": "return over time",
}
NOT_COMPARED = "not compared"
Format = Callable[[float], str]


def whole(value: float) -> str:
    return f"{value:,.0f}"


def interval_text(interval: Interval | None, form: Format) -> str:
    """`172,032 [150,400–201,600]`; an open end where runs that did not reach are too many."""
    if interval is None:
        return "not reached"
    text = form(interval.estimate)
    if interval.low is None:
        return text
    high = "not reached" if interval.high is None else form(interval.high)
    return f"{text} [{form(interval.low)}–{high}]"


def result_rows(comparison: StudyComparison) -> list[tuple[str, ...]]:
    """One row for each variant, in the columns of `HEADINGS`."""
    return [
        (task.task, item.variant, *_cells(task, item))
        for task in comparison.tasks
        if task.search is None
        for item in task.variants
    ]


def _cells(task: TaskResult, item: VariantResult) -> tuple[str, ...]:
    if not item.num_runs:
        return (units.NONE,) * (len(HEADINGS) - 2)
    has_goal = task.threshold is not None
    reached = f"{item.num_reached} of {item.num_runs}"
    no_time = None if task.times_not_compared is None else NOT_COMPARED
    time = interval_text(item.time_to_threshold_s, units.seconds) if has_goal else units.NONE
    rate = interval_text(item.consume_per_s, whole) if item.consume_per_s else units.NONE
    return (
        units.short(task.threshold) if task.threshold is not None else units.NONE,
        reached if has_goal else units.NONE,
        interval_text(item.steps_to_threshold, whole) if has_goal else units.NONE,
        no_time or time,
        no_time or rate,
        return_text(item.final_return, task.threshold),
        return_text(item.mean_return, task.threshold),
        no_time or return_text(item.mean_return_over_time, task.threshold),
        units.number(item.lag_mean, 2),
        units.count(item.lag_max),
        units.NONE if item.dropped_share is None else f"{item.dropped_share:.1%}",
    )


def short_row(item: VariantResult, threshold: float | None = None) -> tuple[str, ...]:
    """One variant in the columns of `SHORT_HEADINGS`: medians without their intervals."""
    return (
        item.variant,
        f"{item.num_reached} of {item.num_runs}",
        _estimate_text(item.steps_to_threshold, whole),
        _estimate_text(item.time_to_threshold_s, units.seconds),
        _estimate_text(item.consume_per_s, whole),
        _estimate_text(item.final_return, lambda value: units.mean_return(value, threshold)),
        units.number(item.lag_mean, 2),
        units.count(item.lag_max),
    )


def _estimate_text(interval: Interval | None, form: Format) -> str:
    return units.NONE if interval is None else form(interval.estimate)


def return_text(interval: Interval | None, threshold: float | None = None) -> str:
    """A return with its interval, never rounded across the threshold of its task."""

    def form(value: float) -> str:
        return units.mean_return(value, threshold)

    return units.NONE if interval is None else interval_text(interval, form)


def return_lines(comparison: StudyComparison) -> list[str]:
    """What each variant has learnt, in one sentence each."""
    return [
        f"{task.task}: {item.variant} ends at a mean return of"
        f" {return_text(item.final_return, task.threshold)}"
        + (
            ""
            if item.mean_return is None
            else f"; over its env steps the mean is {return_text(item.mean_return, task.threshold)}"
        )
        + "."
        for task in comparison.tasks
        if task.search is None
        for item in task.variants
        if item.final_return is not None
    ]


def difference_lines(comparison: StudyComparison) -> list[str]:
    """What each variant has learnt more than the baseline of its task, a sentence for each."""
    return [
        f"{task.task}: the {text} of {item.variant} is {_signed(item.differences[name])} than that"
        f" of {task.baseline} (difference of the medians over the same seeds)."
        for task in comparison.tasks
        for item in task.variants
        for name, text in _RETURNS.items()
        if name in item.differences
    ]


def _signed(difference: Interval) -> str:
    """How much higher or lower, with the interval of the signed difference.

    >>> _signed(Interval(estimate=-12.5, low=-20.0, high=-3.0))
    'lower by 12.5 [-20.0–-3.00]'
    """
    side = "lower" if difference.estimate < 0 else "higher"
    text = f"{side} by {units.mean_return(abs(difference.estimate))}"
    if difference.low is None or difference.high is None:
        return text
    bounds = "–".join(map(units.mean_return, (difference.low, difference.high)))
    return f"{text} [{bounds}]"


def ratio_lines(comparison: StudyComparison) -> list[str]:
    """What each variant needs against the baseline of its task, a sentence for each figure; then
    the returns."""
    return [
        *_ratio_lines(comparison),
        *return_lines(comparison),
        *difference_lines(comparison),
    ]


def _ratio_lines(comparison: StudyComparison) -> list[str]:
    return [
        f"{task.task}: {item.variant} has {_times(item.ratios[name])} times the {text} of"
        f" {task.baseline} (ratio of the medians over the same seeds)."
        for task in comparison.tasks
        for item in task.variants
        for name, text in _RATIOS.items()
        if name in item.ratios
    ]


def _times(ratio: Interval) -> str:
    return interval_text(ratio, lambda value: f"{value:.2f}")


def run_rows(runs: Sequence[StudyRun]) -> list[tuple[str, ...]]:
    """One row for each run, in the columns of `RUN_HEADINGS`."""
    return [(run.cell.name, run.outcome, *_run_cells(run)) for run in runs]


def _run_cells(run: StudyRun) -> tuple[str, ...]:
    summary = run.summary
    if summary is None:
        return (units.NONE,) * (len(RUN_HEADINGS) - 2)
    return (
        units.count(summary.steps_to_threshold),
        units.seconds(summary.time_to_threshold_s),
        units.seconds(summary.wall_s),
        units.number(summary.consume_per_s, 0),
        mean_at_end(summary.return_mean, summary),
        units.count(summary.lag.max),
    )


def fact_rows(manifest: StudyManifest) -> list[tuple[str, str]]:
    """Where, when and from which code."""
    machine, git = manifest.machine, manifest.git
    dirty = " with uncommitted changes" if git.dirty else ""
    size = units.size(machine.memory_bytes)
    return [
        (
            "machine",
            f"{machine.cpu_model}, {units.plural(machine.num_cores, 'core')}, {size}, {machine.os}",
        ),
        ("begun at (UTC)", manifest.started_at),
        ("commit", f"{git.commit or 'unknown'}{dirty}"),
        ("command", shlex.join(manifest.argv)),
    ]


def title_of_comparison(task: TaskResult) -> str:
    """What the panels show: of the last variant that has a ratio, else the best ones."""
    for name, verb in (("steps_to_threshold", "takes"), ("consume_per_s", "consumes")):
        divided = [item for item in task.variants if name in item.ratios]
        if divided:
            per_s = "/s" if verb == "consumes" else ""
            times = _times(divided[-1].ratios[name])
            return f"{divided[-1].variant} {verb} {times} × the env steps{per_s} of {task.baseline}"
    fast = [item for item in task.variants if item.consume_per_s]
    frugal = [item for item in task.variants if item.steps_to_threshold]
    parts = []
    if fast:
        best = max(fast, key=lambda item: _estimate(item.consume_per_s))
        parts.append(f"Most env steps/s at {best.variant}")
    if frugal and task.threshold is not None:
        best = min(frugal, key=lambda item: _estimate(item.steps_to_threshold))
        goal = units.short(task.threshold)
        parts.append(f"fewest env steps to {goal} at {best.variant}")
    return f"{', '.join(parts)} (medians)" if parts else f"{task.task}: nothing was measured"


def _estimate(interval: Interval | None) -> float:
    assert interval is not None
    return interval.estimate


def title_of_returns(task: TaskResult) -> str:
    """Which variant has learnt most in the end."""
    best = max(
        (item for item in task.variants if item.final_return),
        key=lambda item: _estimate(item.final_return),
    )
    final = return_text(best.final_return, task.threshold)
    return f"Highest final return at {best.variant}: {final}"


def title_of_learning(task: TaskResult) -> str:
    """What the curves show."""
    num_runs = sum(item.num_runs for item in task.variants)
    if task.threshold is None:
        return f"{task.task}: mean return of {units.plural(num_runs, 'run')}"
    reached = sum(item.num_reached for item in task.variants)
    goal = units.short(task.threshold)
    text = f"{task.task}: {reached} of {num_runs} reach {goal}"
    steps = task.variants[0].steps_to_threshold
    if len(task.variants) > 1 or steps is None:
        return text
    return f"{text}, median {whole(steps.estimate / 1000)} k env steps"
