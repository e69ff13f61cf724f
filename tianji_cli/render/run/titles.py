"""Titles of the figures: the one thing that each shows, in words, from the data."""

from __future__ import annotations

from collections.abc import Sequence

from tianji_cli import units
from tianji_cli.analysis.curves import RunCurves
from tianji_cli.render.run.rows import judged_return, mean_at_end, remark_of_end

Runs = Sequence[RunCurves]


def return_over_time(runs: Runs) -> str:
    summary = runs[0].summary
    if len(runs) > 1:
        return _reached_by(runs) + ", over time"
    if len(runs[0].episodes) and summary.reached and summary.threshold is not None:
        when = units.seconds(summary.time_to_threshold_s)
        return f"{judged_return(summary)} reaches {units.short(summary.threshold)} after {when}"
    return _end_of_return(runs[0])


def return_over_steps(runs: Runs) -> str:
    summary = runs[0].summary
    if len(runs) > 1:
        return _reached_by(runs) + ", over env steps"
    if len(runs[0].episodes) and summary.reached and summary.threshold is not None:
        steps = units.count(summary.steps_to_threshold)
        threshold = units.short(summary.threshold)
        return f"{judged_return(summary)} reaches {threshold} after {steps} env steps"
    return _end_of_return(runs[0])


def _reached_by(runs: Runs) -> str:
    judged = [run.summary for run in runs if run.summary.threshold is not None]
    thresholds = {summary.threshold for summary in judged}
    if not judged:
        return "Mean return"
    num_reached = sum(bool(summary.reached) for summary in judged)
    if len(thresholds) > 1:
        return f"{num_reached} of {len(runs)} runs reach their own threshold"
    goal = units.short(min(t for t in thresholds if t is not None))
    return f"{num_reached} of {len(runs)} runs reach a mean return of {goal}"


def _end_of_return(run: RunCurves) -> str:
    summary = run.summary
    if not len(run.episodes):
        return "Return: no episode has finished"
    if summary.return_mean is None:
        return "Return: no episode has finished since the run was resumed"
    whose = f" of {summary.return_of}" if summary.return_of else ""
    text = f"Mean return{whose} ends at {mean_at_end(summary.return_mean, summary)}"
    if remark := remark_of_end(summary.return_mean, summary):
        return f"{text} ({remark})"
    if summary.threshold is not None:
        text += f", short of {units.short(summary.threshold)}"
    return text


def rates(runs: Runs) -> str:
    if len(runs) > 1:
        known = [run for run in runs if run.summary.consume_per_s is not None]
        if not known:
            return "Consumption rate"
        best_per_s = max(run.summary.consume_per_s or 0.0 for run in known)
        return f"The fastest run consumes {units.rate(best_per_s)} in its steady window"
    summary = runs[0].summary
    if runs[0].rates.empty:
        return "Rates: nothing was collected"
    if summary.collect_per_s is None or summary.consume_per_s is None:
        return "Production and consumption rate"
    collected, consumed = (
        f"{rate:,.0f}" for rate in (summary.collect_per_s, summary.consume_per_s)
    )
    balance = units.number(summary.balance, 2)
    return f"{collected} env steps/s collected, {consumed} consumed (P/C {balance})"


def lag(runs: Runs) -> str:
    if len(runs) > 1:
        return "Mean lag of the trained env steps"
    summary, bound = runs[0].summary, runs[0].max_lag
    if runs[0].lags.empty or summary.lag.max is None:
        return "Lag: nothing was trained"
    text = f"Trained env steps are at most {_versions(summary.lag.max)} old"
    if bound is None:
        return f"{text}; there is no bound"
    if moves := runs[0].bounds:
        least = min(value for of_learner in moves.values() for _, value in of_learner)
        return f"{text}; the bound was {least} to {bound}"
    return f"{text}, {'within' if summary.lag.max <= bound else 'above'} the bound of {bound}"


def lag_histogram(runs: Runs) -> str:
    if len(runs) > 1:
        return "Lag of the trained env steps"
    table = runs[0].histogram
    if table.empty:
        return "Lag: nothing was trained"
    top = int(table["share"].argmax())
    share, lag = float(table["share"].iloc[top]), int(table["lag"].iloc[top])
    if share < 0.5:
        median = int(table["lag"][table["share"].cumsum() >= 0.5].iloc[0])
        return f"Half of the trained env steps are at most {_versions(median)} old"
    return f"{100 * share:.3g}% of the trained env steps are {_versions(lag)} old"


def rollout_age(runs: Runs) -> str:
    if len(runs) > 1:
        return "Mean age of a rollout when training on it starts"
    if runs[0].lags.empty:
        return "Rollout age: nothing was trained"
    age_s = float(runs[0].lags["age_mean_s"].mean())
    return f"A rollout is {units.seconds(age_s)} old on average when training on it starts"


def sample_age(runs: Runs) -> str:
    """Of those runs whose samples come from a replay store."""
    if len(runs) > 1:
        return "Mean age of a replayed sample when training on it starts"
    age_s = float(runs[0].lags["age_mean_s"].mean())
    return f"A replayed sample is {units.seconds(age_s)} old on average when it is trained on"


def replay_ratio(runs: Runs) -> str:
    """Of those runs whose samples come from a replay store."""
    run = runs[0]
    if len(runs) > 1 or run.summary.replay_ratio is None:
        return "Samples trained for each env step collected"
    text = f"Each env step is trained on {run.summary.replay_ratio:.3g} times"
    wanted = run.wanted_replay_ratio
    return text if wanted is None else f"{text}; {wanted:g} were asked for"


def _versions(lag: int) -> str:
    return units.plural(lag, "version")
