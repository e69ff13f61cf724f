"""Texts about a comparison, for the terminal, the page and the figures (pure functions)."""

from __future__ import annotations

from tianji_cli import units
from tianji_cli.bench.comparison.compare import US, Ratio, SystemSummary, TaskComparison
from tianji_cli.bench.statistics import Interval
from tianji_cli.bench.systems.registry import SYSTEMS_BY_NAME

TITLES = {name: system.title for name, system in SYSTEMS_BY_NAME.items()}

PAPER = (
    (
        "On-policy training against RLlib, XingTian",
        "throughput 4.36 x, 2.95 x",
        "TianJi, AAAI 2025 (arXiv 2502.20190)",
    ),
    (
        "Convergence against RLlib, XingTian and others",
        "up to 4.37 x faster",
        "TianJi, AAAI 2025",
    ),
    (
        "Eight nodes against XingTian",
        "convergence 1.6 x, throughput 7.13 x",
        "TianJi, AAAI 2025",
    ),
)
"""What the paper claims, always shown as: paper, other hardware."""

COUNTING = (
    "Env steps and returns are counted by the environments themselves, by one wrapper for all"
    " baselines; TianJi's actors count their own.",
    "Throughput is taken over the last 80% of the time between first sample and stop: the first"
    " 20% hold start-up and compilation.",
    "The threshold is on training returns, exploration included, judged by the harness by one"
    " rule for all systems (row 'judge' of the parity table): the mean must hold it for several"
    " episodes in a row. It is not an evaluation on separate episodes: not every system has one.",
    "In the mean of the learning curves a run that has ended keeps its last value.",
    "A run that misses the threshold is right-censored at its end: it enters as 'longer than'.",
    "Seeds match labels, not random streams, across systems.",
    "The final return is the mean of the last training episodes when the system was stopped, so it"
    " may lie below a threshold that it reached before; the return over env steps is the area under"
    " the learning curve, divided by the env steps that the curves of all runs cover. Both are"
    " medians over blocks with bootstrap intervals.",
    "All systems ran on one host, one after the other; processes are not nodes.",
)


def interval_text(value: Interval | None, digits: int = 2) -> str:
    """
    >>> interval_text(Interval(estimate=3.456, low=2.9, high=4.0))
    '3.46 [2.90, 4.00]'
    """
    if value is None:
        return units.NONE
    text = units.number(value.estimate, digits)
    if value.low is None or value.high is None:
        return text
    return f"{text} [{units.number(value.low, digits)}, {units.number(value.high, digits)}]"


def ratio_text(ratio: Ratio | None) -> str:
    """A ratio with its interval and what it shows."""
    if ratio is None:
        return units.NONE
    if ratio.value is None:
        return f"not computable ({ratio.reason})"
    if ratio.answer == "no difference shown":
        return f"no difference shown ({interval_text(ratio.value)})"
    if ratio.answer == "too few blocks":
        return f"{units.number(ratio.value.estimate, 2)} × (one block: no interval)"
    low, high = units.number(ratio.value.low, 2), units.number(ratio.value.high, 2)
    estimate = units.number(ratio.value.estimate, 2)
    return f"{estimate} × [{low}, {high}], TianJi is {ratio.answer}"


def success_text(summary: SystemSummary) -> str:
    """Reached of observed, with Wilson's interval in per cent."""
    if summary.success is None or summary.success.low is None or summary.success.high is None:
        return units.NONE
    return f"{reached_text(summary)} ({summary.success.low:.0%} to {summary.success.high:.0%})"


def reached_text(summary: SystemSummary) -> str:
    """Reached of observed."""
    reached = summary.outcomes.get("reached", 0)
    observed = reached + summary.outcomes.get("censored", 0)
    return f"{reached}/{observed}" if observed else units.NONE


def median_text(summary: SystemSummary) -> str:
    """The median time to the threshold, or that half of the runs did not get there."""
    if not summary.survival:
        return units.NONE
    return "not reached" if summary.median_s is None else units.seconds(summary.median_s)


def failures_text(summary: SystemSummary) -> str:
    """Outcomes that are neither reached nor censored."""
    bad = {k: n for k, n in summary.outcomes.items() if k not in ("reached", "censored")}
    return ", ".join(f"{count} {name}" for name, count in sorted(bad.items())) or "none"


def title_of_throughput(comparison: TaskComparison) -> str:
    """Sentence on the fastest system."""
    known = [summary for summary in comparison.systems if summary.throughput is not None]
    if not known:
        return "Throughput"
    best = max(
        known, key=lambda summary: summary.throughput.estimate if summary.throughput else 0.0
    )
    assert best.throughput is not None
    return f"{TITLES[best.system]} collects most: {units.rate(best.throughput.estimate)}"


def title_of_time(comparison: TaskComparison) -> str:
    """Sentence on the system that reaches the threshold first."""
    known = [summary for summary in comparison.systems if summary.median_s is not None]
    if not known:
        return "Time to the threshold: no system gets half of its runs there"
    best = min(known, key=lambda summary: summary.median_s or 0.0)
    return (
        f"{TITLES[best.system]} reaches the threshold first: median {units.seconds(best.median_s)}"
    )


def verdicts(comparison: TaskComparison) -> list[str]:
    """One sentence about each baseline."""
    lines = []
    for summary in comparison.systems:
        if summary.system == US:
            continue
        throughput, time = ratio_text(summary.throughput_ratio), ratio_text(summary.time_ratio)
        lines.append(f"{TITLES[summary.system]}: throughput {throughput}; time to threshold {time}")
    return lines + equal_steps_lines(comparison) + return_lines(comparison)


def equal_steps_lines(comparison: TaskComparison) -> list[str]:
    """Of a task with `env_steps`: one sentence about each baseline."""
    return [
        f"{TITLES[summary.system]}, at equal env steps: {difference_text(summary)};"
        f" env steps trained per second: {ratio_text(summary.trained_ratio)}"
        for summary in comparison.systems
        if summary.trained_ratio
    ]


def difference_text(summary: SystemSummary) -> str:
    """TianJi's return less that of this system, with what it shows."""
    found = summary.return_difference
    if found is None:
        return "no returns to compare"
    shown = f"TianJi's return less its {interval_text(found.value, 1)}"
    words = {"better": "TianJi is better", "worse": "TianJi is worse"}
    return f"{shown}, {words.get(found.answer, found.answer)}"


def return_lines(comparison: TaskComparison) -> list[str]:
    """What each system has learnt, in one sentence each."""
    return [
        f"{TITLES[summary.system]} ends at a mean return of {return_text(summary.final_return)}"
        + (
            f"; over its first {units.count(comparison.horizon_env_steps)} env steps the mean is"
            f" {return_text(summary.mean_return)}"
            if summary.mean_return
            else ""
        )
        for summary in comparison.systems
        if summary.final_return
    ]


def return_text(value: Interval | None, threshold: float | None = None) -> str:
    """A return with its interval; given a threshold, never rounded across it."""
    if value is None:
        return units.NONE
    estimate, *bounds = (
        units.mean_return(number, threshold) for number in (value.estimate, value.low, value.high)
    )
    return estimate if value.low is None else f"{estimate} [{bounds[0]}, {bounds[1]}]"
