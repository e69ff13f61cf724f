"""How old trained samples are in seconds, and how often replayed ones are trained on."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from tianji_cli.analysis.curves import RunCurves
from tianji_cli.plotting.figure_style import BLUE, INK, VERMILLION
from tianji_cli.plotting.figures import Axes
from tianji_cli.render.run.figures_axes import BOUND, TIME, number_axes
from tianji_cli.render.run.figures_seeds import draw_lines

Runs = Sequence[RunCurves]


def _draw_age(axes: Axes, runs: Runs, *, is_replay: bool) -> bool:
    """Samples of a replay store live for seconds, rollouts of a queue for milliseconds."""
    scale, unit = (1.0, "s") if is_replay else (1000.0, "ms")
    what = "sample" if is_replay else "rollout"
    drawn = [run for run in runs if run.is_replay == is_replay]

    def ages_of(run: RunCurves) -> pd.DataFrame | None:
        if run.is_replay != is_replay:
            return None
        ages = run.lags[["age_mean_s", "age_max_s"]] * scale
        return ages.assign(t_s=run.lags["t_s"])

    if len(runs) > 1:
        draw_lines(axes, runs, ages_of, "t_s", "age_mean_s")
    elif (ages := ages_of(runs[0])) is not None:
        axes.plot(ages["t_s"], ages["age_mean_s"], label="mean", color=BLUE)
        axes.plot(
            ages["t_s"],
            ages["age_max_s"],
            color=VERMILLION,
            linestyle="--",
            linewidth=1.1,
            label=f"oldest {what} of a batch",
        )
    number_axes(axes, x=TIME, y=f"{what} age ({unit})", from_zero=True)
    return any(len(run.lags) for run in drawn)


def draw_rollout_age(axes: Axes, runs: Runs) -> bool:
    return _draw_age(axes, runs, is_replay=False)


def draw_sample_age(axes: Axes, runs: Runs) -> bool:
    return _draw_age(axes, runs, is_replay=True)


def draw_replay_ratio(axes: Axes, runs: Runs) -> bool:
    if len(runs) > 1:
        draw_lines(
            axes,
            runs,
            lambda run: run.replay_ratio if run.is_replay else None,
            "t_s",
            "replay_ratio",
        )
    elif runs[0].is_replay:
        ratios = runs[0].replay_ratio
        axes.plot(ratios["t_s"], ratios["replay_ratio"], label="since the start", color=BLUE)
    wanted = {run.wanted_replay_ratio for run in runs if run.is_replay}
    for ratio in sorted(ratio for ratio in wanted if ratio is not None):
        axes.axhline(ratio, color=INK, linewidth=1.1, linestyle=BOUND, label=f"wanted {ratio:g}")
    number_axes(axes, x=TIME, y="samples trained per env step", from_zero=True)
    return any(run.is_replay for run in runs)


def any_queue(runs: Runs) -> bool:
    return any(not run.is_replay for run in runs)


def any_replay(runs: Runs) -> bool:
    return any(run.is_replay for run in runs)
