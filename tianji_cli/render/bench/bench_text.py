"""Texts about a comparison, for the terminal, the page and the figures (pure functions)."""

from __future__ import annotations

from tianji_cli import units
from tianji_cli.bench.comparison.compare import US, PeerSummary, Ratio, TaskComparison
from tianji_cli.bench.statistics import Interval
from tianji_cli.bench.systems.registry import PEERS_BY_NAME

TITLES = {name: peer.title for name, peer in PEERS_BY_NAME.items()}

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
    " peers; TianJi's actors count their own.",
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


def success_text(peer: PeerSummary) -> str:
    """Reached of observed, with Wilson's interval in per cent."""
    if peer.success is None or peer.success.low is None or peer.success.high is None:
        return units.NONE
    return f"{reached_text(peer)} ({peer.success.low:.0%} to {peer.success.high:.0%})"


def reached_text(peer: PeerSummary) -> str:
    """Reached of observed."""
    reached = peer.outcomes.get("reached", 0)
    observed = reached + peer.outcomes.get("censored", 0)
    return f"{reached}/{observed}" if observed else units.NONE


def median_text(peer: PeerSummary) -> str:
    """The median time to the threshold, or that half of the runs did not get there."""
    if not peer.survival:
        return units.NONE
    return "not reached" if peer.median_s is None else units.seconds(peer.median_s)


def failures_text(peer: PeerSummary) -> str:
    """Outcomes that are neither reached nor censored."""
    bad = {k: n for k, n in peer.outcomes.items() if k not in ("reached", "censored")}
    return ", ".join(f"{count} {name}" for name, count in sorted(bad.items())) or "none"


def title_of_throughput(comparison: TaskComparison) -> str:
    """Sentence on the fastest system."""
    known = [peer for peer in comparison.peers if peer.throughput is not None]
    if not known:
        return "Throughput"
    best = max(known, key=lambda peer: peer.throughput.estimate if peer.throughput else 0.0)
    assert best.throughput is not None
    return f"{TITLES[best.peer]} collects most: {units.rate(best.throughput.estimate)}"


def title_of_time(comparison: TaskComparison) -> str:
    """Sentence on the system that reaches the threshold first."""
    known = [peer for peer in comparison.peers if peer.median_s is not None]
    if not known:
        return "Time to the threshold: no system gets half of its runs there"
    best = min(known, key=lambda peer: peer.median_s or 0.0)
    return f"{TITLES[best.peer]} reaches the threshold first: median {units.seconds(best.median_s)}"


def verdicts(comparison: TaskComparison) -> list[str]:
    """One sentence about each peer."""
    lines = []
    for peer in comparison.peers:
        if peer.peer == US:
            continue
        throughput, time = ratio_text(peer.throughput_ratio), ratio_text(peer.time_ratio)
        lines.append(f"{TITLES[peer.peer]}: throughput {throughput}; time to threshold {time}")
    return lines + return_lines(comparison)


def return_lines(comparison: TaskComparison) -> list[str]:
    """What each system has learnt, in one sentence each."""
    return [
        f"{TITLES[peer.peer]} ends at a mean return of {return_text(peer.final_return)}"
        + (
            f"; over its first {units.count(comparison.horizon_env_steps)} env steps the mean is"
            f" {return_text(peer.mean_return)}"
            if peer.mean_return
            else ""
        )
        for peer in comparison.peers
        if peer.final_return
    ]


def return_text(value: Interval | None, threshold: float | None = None) -> str:
    """A return with its interval; given a threshold, never rounded across it."""
    if value is None:
        return units.NONE
    estimate, *bounds = (
        units.mean_return(number, threshold) for number in (value.estimate, value.low, value.high)
    )
    return estimate if value.low is None else f"{estimate} [{bounds[0]}, {bounds[1]}]"
