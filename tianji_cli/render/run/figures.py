"""The figures. Each takes the curves of one or more runs and draws them on the same axes.

A title says what the reader should see, so it is computed from the data. Object API only: pyplot
keeps global state and asks for a display.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from tianji_cli.analysis.curves import RunCurves
from tianji_cli.analysis.throughput import steady_window_s
from tianji_cli.plotting.figure_style import (
    BLUE,
    INK,
    VERMILLION,
    colour_of,
    dashes_of,
    short_label,
)
from tianji_cli.plotting.figures import Axes, MaxNLocator, PercentFormatter
from tianji_cli.render.run import titles
from tianji_cli.render.run.figures_age import (
    any_queue,
    any_replay,
    draw_replay_ratio,
    draw_rollout_age,
    draw_sample_age,
)
from tianji_cli.render.run.figures_axes import (
    BOUND,
    ENV_STEPS,
    MAX_BAR_RUNS,
    TIME,
    draw_bars,
    draw_joints,
    draw_stairs,
    number_axes,
)
from tianji_cli.render.run.figures_metrics import (
    any_metrics,
    draw_metric,
    metric_names,
    metrics_title,
)
from tianji_cli.render.run.figures_profile import draw_profile, has_profile, profile_title
from tianji_cli.render.run.figures_seeds import draw_lines, grouped
from tianji_cli.render.run.figures_spec import FigureSpec, PanelsSpec, make_figure
from tianji_cli.render.run.figures_team import any_team, draw_named_return, team_names, team_title

MAX_VECTOR_DOTS = 1500
"""More episodes than this become an image inside the SVG, or the page would weigh megabytes."""
MAX_BARS = 12

__all__ = ["FIGURES", "FigureSpec", "PanelsSpec", "make_figure"]

Runs = Sequence[RunCurves]


def _draw_return(axes: Axes, runs: Runs, x: str) -> bool:
    drawn = [run for run in runs if len(run.episodes)]
    if grouped(runs):
        draw_lines(axes, runs, _full_windows, x, "return_mean", holds_last=True)
        for index, (_, members) in enumerate(grouped(runs)):
            for run in members:
                _draw_evaluations(axes, run, x, colour_of(index))
        _draw_threshold(axes, runs)
        return bool(drawn)
    for index, run in enumerate(runs):
        if not len(run.episodes):
            continue
        curve = run.episodes
        if len(runs) == 1:
            _draw_episodes(axes, curve[x], curve["episode_return"])
        label = (
            f"mean of last {run.window} (dotted: fewer)"
            if len(runs) == 1
            else short_label(run.label)
        )
        full = curve["return_mean"].where(curve["is_full"])
        early = curve["return_mean"].where(~curve["is_full"])
        colour = colour_of(index)
        axes.plot(curve[x], early, color=colour, linewidth=0.9, linestyle=":")
        axes.plot(
            curve[x],
            full,
            label=label,
            color=colour_of(index),
            linestyle=dashes_of(index),
        )
        _draw_evaluations(axes, run, x, colour)
        draw_joints(axes, run, x, colour)
    _draw_threshold(axes, runs)
    return bool(drawn)


def _return_label(runs: Runs) -> str:
    """Of whom, if all runs judge the same agent or policy of a team."""
    names = {run.summary.return_of for run in runs}
    name = names.pop() if len(names) == 1 else None
    return "return per episode" if name is None else f"return of {short_label(name)} per episode"


def _full_windows(run: RunCurves) -> pd.DataFrame | None:
    """The mean returns of full windows; of a run that has none, those of fewer episodes."""
    curve = run.episodes
    full = curve[curve["is_full"].astype(bool)] if len(curve) else curve
    return full if len(full) else curve if len(curve) else None


def _draw_evaluations(axes: Axes, run: RunCurves, x: str, colour: str) -> None:
    """A ring for each evaluation, on the same axes as the training episodes."""
    if len(run.evaluations):
        axes.plot(
            run.evaluations[x],
            run.evaluations["return_mean"],
            "o",
            markerfacecolor="none",
            markeredgecolor=colour,
            markersize=5,
            label="evaluation",
        )


def _draw_episodes(axes: Axes, x: pd.Series[float], returns: pd.Series[float]) -> None:
    alpha = max(0.03, min(0.3, 450 / max(1, len(x))))
    dots = axes.plot(x, returns, ".", color=BLUE, alpha=alpha, markersize=4.5, markeredgewidth=0)
    dots[0].set_rasterized(len(x) > MAX_VECTOR_DOTS)
    axes.plot([], [], ".", color=BLUE, markersize=9, markeredgewidth=0, label="one episode")


def _draw_threshold(axes: Axes, runs: Runs) -> None:
    thresholds = {run.summary.threshold for run in runs} - {None}
    for threshold in sorted(t for t in thresholds if t is not None):
        axes.axhline(
            threshold,
            color=INK,
            linewidth=1.1,
            linestyle=BOUND,
            label=f"threshold {threshold:g}",
        )


def _draw_return_over_time(axes: Axes, runs: Runs) -> bool:
    has_data = _draw_return(axes, runs, "t_s")
    number_axes(axes, x=TIME, y=_return_label(runs))
    if len(runs) == 1 and (reached_s := runs[0].summary.time_to_threshold_s) is not None:
        axes.axvline(reached_s, color=INK, linewidth=0.9, linestyle=":")
    return has_data


def _draw_return_over_steps(axes: Axes, runs: Runs) -> bool:
    has_data = _draw_return(axes, runs, "env_steps")
    number_axes(axes, x=ENV_STEPS, y=_return_label(runs))
    if len(runs) == 1 and (steps := runs[0].summary.steps_to_threshold) is not None:
        axes.axvline(steps, color=INK, linewidth=0.9, linestyle=":")
    return has_data


def _draw_rates(axes: Axes, runs: Runs) -> bool:
    """One run: both rates. Several: what each run consumed, since that is what it learned from."""
    if len(runs) > 1:
        draw_lines(axes, runs, lambda run: run.rates, "t_s", "consume_per_s")
    else:
        run = runs[0]
        axes.axvspan(*steady_window_s(run.end_s), color="#f1f1f1", zorder=0, label="steady window")
        rates = run.rates
        axes.plot(rates["t_s"], rates["collect_per_s"], color=BLUE, label="collected (P)")
        axes.plot(
            rates["t_s"],
            rates["consume_per_s"],
            color=VERMILLION,
            linestyle="--",
            label="consumed (C)",
        )
    rate = "rate" if len(runs) == 1 else "consumption rate"
    number_axes(axes, x=TIME, y=f"{rate} (env steps/s)", from_zero=True)
    return any(len(run.rates) for run in runs)


def _draw_lag(axes: Axes, runs: Runs) -> bool:
    if len(runs) > 1:
        draw_lines(axes, runs, lambda run: run.lags, "t_s", "lag_mean")
    else:
        lags = runs[0].lags
        axes.fill_between(
            lags["t_s"],
            lags["lag_min"],
            lags["lag_max"],
            color=BLUE,
            alpha=0.16,
            linewidth=0,
            label="min to max",
        )
        axes.plot(lags["t_s"], lags["lag_mean"], label="mean", color=BLUE)
    for bound in _given_bounds(runs):
        axes.axhline(bound, color=INK, linewidth=1.1, linestyle=BOUND, label=f"bound {bound}")
    if len(runs) == 1:
        _draw_moving_bounds(axes, runs[0])
    number_axes(axes, x=TIME, y="lag (weights versions)")
    top = max(
        [1.0, *_bounds(runs), *(float(run.lags["lag_max"].max()) for run in runs if len(run.lags))]
    )
    axes.set_ylim(-0.04 * top, 1.12 * top)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    return any(len(run.lags) for run in runs)


def _draw_moving_bounds(axes: Axes, run: RunCurves) -> None:
    """The bound of each learner, over time."""
    for index, (learner, moves) in enumerate(run.bounds.items()):
        times_s, bounds = zip(*moves, strict=True)
        of = f" of {learner}" if len(run.bounds) > 1 else ""
        axes.step(
            [*times_s, run.end_s],
            [*bounds, bounds[-1]],
            where="post",
            color=INK if len(run.bounds) == 1 else colour_of(index),
            linewidth=1.1,
            linestyle=BOUND,
            label=f"bound{of}",
        )


def _bounds(runs: Runs) -> list[int]:
    return sorted({run.max_lag for run in runs if run.max_lag is not None})


def _given_bounds(runs: Runs) -> list[int]:
    """Those that did not move."""
    return _bounds([run for run in runs if not run.bounds])


def _draw_histogram(axes: Axes, runs: Runs) -> bool:
    tables = [run.histogram for run in runs if len(run.histogram)]
    lags = [int(lag) for table in tables for lag in table["lag"]]
    has_bars = max(lags, default=0) - min(lags, default=0) < MAX_BARS and len(runs) <= MAX_BAR_RUNS
    for index, run in enumerate(runs):
        draw = draw_bars if has_bars else draw_stairs
        draw(axes, run, index, len(runs))
    largest = "largest " if any(run.bounds for run in runs) else ""
    for bound in _bounds(runs):
        label = f"{largest}bound {bound}"
        axes.axvline(bound + 0.5, color=INK, linewidth=1.1, linestyle=BOUND, label=label)
    axes.set(xlabel="lag (weights versions)", ylabel="share of consumed env steps")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=MAX_BARS, integer=True))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6))
    axes.set_ylim(0, 1.12 if has_bars else None)
    axes.grid(False, axis="x")
    return bool(tables)


FIGURES: tuple[FigureSpec | PanelsSpec, ...] = (
    FigureSpec("return_over_time", titles.return_over_time, _draw_return_over_time),
    FigureSpec("return_over_env_steps", titles.return_over_steps, _draw_return_over_steps),
    PanelsSpec(
        "returns_within_team", team_title, team_names, draw_named_return, any_team, ENV_STEPS
    ),
    FigureSpec("rates", titles.rates, _draw_rates),
    FigureSpec("lag_over_time", titles.lag, _draw_lag),
    FigureSpec("lag_histogram", titles.lag_histogram, _draw_histogram),
    FigureSpec("rollout_age", titles.rollout_age, draw_rollout_age, any_queue),
    FigureSpec("replay_ratio", titles.replay_ratio, draw_replay_ratio, any_replay),
    FigureSpec("sample_age", titles.sample_age, draw_sample_age, any_replay),
    PanelsSpec("metrics", metrics_title, metric_names, draw_metric, any_metrics),
    FigureSpec("profile", profile_title, draw_profile, has_profile),
)
