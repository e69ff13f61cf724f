"""How old trained samples are in seconds, and how often replayed ones are trained on."""

from __future__ import annotations

from collections.abc import Sequence

from tianji_cli.analysis.curves import RunCurves
from tianji_cli.plotting.figure_style import INK, VERMILLION, colour_of, dashes_of, short_label
from tianji_cli.plotting.figures import Axes
from tianji_cli.render.run.figures_axes import BOUND, TIME, number_axes

Runs = Sequence[RunCurves]


def _draw_age(axes: Axes, runs: Runs, *, is_replay: bool) -> bool:
    """Samples of a replay store live for seconds, rollouts of a queue for milliseconds."""
    scale, unit = (1.0, "s") if is_replay else (1000.0, "ms")
    what = "sample" if is_replay else "rollout"
    drawn = [(index, run) for index, run in enumerate(runs) if run.is_replay == is_replay]
    for index, run in drawn:
        lags = run.lags
        label = "mean" if len(runs) == 1 else short_label(run.label)
        axes.plot(
            lags["t_s"],
            lags["age_mean_s"] * scale,
            label=label,
            color=colour_of(index),
            linestyle=dashes_of(index),
        )
        if len(runs) == 1:
            axes.plot(
                lags["t_s"],
                lags["age_max_s"] * scale,
                color=VERMILLION,
                linestyle="--",
                linewidth=1.1,
                label=f"oldest {what} of a batch",
            )
    number_axes(axes, x=TIME, y=f"{what} age ({unit})", from_zero=True)
    return any(len(run.lags) for _, run in drawn)


def draw_rollout_age(axes: Axes, runs: Runs) -> bool:
    return _draw_age(axes, runs, is_replay=False)


def draw_sample_age(axes: Axes, runs: Runs) -> bool:
    return _draw_age(axes, runs, is_replay=True)


def draw_replay_ratio(axes: Axes, runs: Runs) -> bool:
    for index, run in enumerate(runs):
        if run.is_replay:
            axes.plot(
                run.replay_ratio["t_s"],
                run.replay_ratio["replay_ratio"],
                label="since the start" if len(runs) == 1 else short_label(run.label),
                color=colour_of(index),
                linestyle=dashes_of(index),
            )
    wanted = {run.wanted_replay_ratio for run in runs if run.is_replay}
    for ratio in sorted(ratio for ratio in wanted if ratio is not None):
        axes.axhline(ratio, color=INK, linewidth=1.1, linestyle=BOUND, label=f"wanted {ratio:g}")
    number_axes(axes, x=TIME, y="samples trained per env step", from_zero=True)
    return any(run.is_replay for run in runs)


def any_queue(runs: Runs) -> bool:
    return any(not run.is_replay for run in runs)


def any_replay(runs: Runs) -> bool:
    return any(run.is_replay for run in runs)
