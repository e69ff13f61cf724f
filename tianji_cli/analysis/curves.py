"""Data of all plots of one run, computed once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from engine.trace.records import Consumption, Production, Replay, Staleness
from engine.trace.summary import Summary
from tianji_cli.analysis.ancestry import Ancestor
from tianji_cli.analysis.convergence import episode_curve, evaluation_curve
from tianji_cli.analysis.metrics import metrics_over_time
from tianji_cli.analysis.old_samples.lag_bound import bounds_over_time, largest_bound
from tianji_cli.analysis.profile import RoleProfile, profile_of
from tianji_cli.analysis.run import RunData
from tianji_cli.analysis.staleness import lag_histogram, lag_over_time
from tianji_cli.analysis.tables import to_frame
from tianji_cli.analysis.teams import curves_by_name
from tianji_cli.analysis.throughput import rates_over_time

MAX_RATIO_POINTS = 400


def replay_ratio_over_time(production: pd.DataFrame, consumption: pd.DataFrame) -> pd.DataFrame:
    """Samples trained ÷ env steps collected, both since the start of training.

    Args:
        production: Rows of `Production`.
        consumption: Rows of `Consumption`.

    Returns:
        `t_s` and `replay_ratio`, at most 400 rows, the last batch included. Its last value is the
        summary's but for what was collected after that batch.
    """
    trained = consumption.sort_values("t_s", kind="stable")
    collected = production.sort_values("t_s", kind="stable")
    totals = np.concatenate([[0], collected["env_steps"].cumsum().to_numpy()])
    index = np.searchsorted(collected["t_s"].to_numpy(), trained["t_s"].to_numpy(), side="right")
    frame = pd.DataFrame(
        {
            "t_s": trained["t_s"].to_numpy(),
            "replay_ratio": trained["samples_trained"].cumsum().to_numpy()
            / np.maximum(1, totals[index]),
        }
    )
    keep = np.unique(np.linspace(0, len(frame) - 1, min(MAX_RATIO_POINTS, len(frame))).round())
    return frame.iloc[keep.astype(int)].reset_index(drop=True)


MAX_POINTS = 100_000
"""Points of a curve; a plot is a thousand pixels wide."""


@dataclass(frozen=True)
class RunCurves:
    """One run's curves.

    Attributes:
        label: What legends call the run.
        summary: Written or rebuilt.
        episodes: From `episode_curve`; of a resumed run, after those of the runs before it.
        evaluations: From `evaluation_curve`.
        window: Episodes in its moving mean.
        rates: From `rates_over_time`.
        lags: From `lag_over_time`.
        histogram: From `lag_histogram`.
        replay_ratio: From `replay_ratio_over_time`; empty where samples come from a queue.
        wanted_replay_ratio: The configured ratio of the algorithm; None where samples come from a
            queue.
        max_lag: The bound in versions, the largest one if it moved; None if the run had none.
        bounds: If it moved, when and to what, by learner; see `bounds_over_time`.
        profile: Where the time of each role went; empty if that was not asked for.
        end_s: End of the run, in seconds since training started.
        joints: Where it resumed another run: seconds, env steps collected by then.
        metrics: By name, from `metrics_over_time`; also of the runs before it.
        within_team: By agent or policy of a team, as `episodes`; see `curves_by_name`.
        group: Title of the runs with the same settings, of a comparison in which there are such;
            empty in others.
    """

    label: str
    summary: Summary
    episodes: pd.DataFrame
    evaluations: pd.DataFrame
    window: int
    rates: pd.DataFrame
    lags: pd.DataFrame
    histogram: pd.DataFrame
    replay_ratio: pd.DataFrame
    wanted_replay_ratio: float | None
    max_lag: int | None
    profile: list[RoleProfile]
    end_s: float
    joints: tuple[tuple[float, int], ...] = ()
    metrics: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    within_team: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    bounds: Mapping[str, list[tuple[float, int]]] = field(default_factory=dict)
    group: str = ""

    @property
    def is_replay(self) -> bool:
        """Whether its samples come from a replay store."""
        return len(self.replay_ratio) > 0


def curves_of(
    run: RunData, summary: Summary, label: str, before: Sequence[Ancestor] = ()
) -> RunCurves:
    """Computes the curves of one run, and of those that it resumes."""
    staleness = to_frame(run.staleness, Staleness)
    window, name = run.manifest.return_window, run.manifest.return_of
    production = to_frame(run.production, Production)
    consumption = to_frame(run.consumption, Consumption)
    nothing = to_frame((), Consumption)
    trained = [row for one in before for row in one.consumption] + run.consumption
    return RunCurves(
        label=label,
        summary=summary,
        episodes=_drawable(
            [
                *(episode_curve(one.episodes, one.window, name) for one in before),
                episode_curve(run.episodes, window, name),
            ]
        ),
        evaluations=_joined(
            [
                *(evaluation_curve(one.evaluations, name) for one in before),
                evaluation_curve(run.evaluations, name),
            ]
        ),
        window=window,
        rates=rates_over_time(production, consumption, run.end_s, to_frame(run.replay, Replay)),
        lags=lag_over_time(staleness, run.end_s),
        histogram=lag_histogram(run.staleness),
        replay_ratio=replay_ratio_over_time(production, consumption if run.replay else nothing),
        wanted_replay_ratio=run.manifest.number("experiment", "algorithm", "replay_ratio"),
        max_lag=largest_bound(run),
        bounds=bounds_over_time(run),
        profile=profile_of(run.profile),
        end_s=run.end_s,
        joints=tuple((one.until.elapsed_s, one.until.env_steps_collected) for one in before),
        within_team={
            key: _drawable([curve])
            for key, curve in curves_by_name(
                [*(one.episodes for one in before), run.episodes], window
            ).items()
        },
        metrics=metrics_over_time(to_frame(trained, Consumption), run.end_s),
    )


def _joined(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Concatenates tables; without rows, the last one, which has the columns."""
    filled = [part for part in parts if len(part)]
    return pd.concat(filled, ignore_index=True) if len(filled) > 1 else (filled or parts)[-1]


def _drawable(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Concatenates tables and keeps at most `MAX_POINTS` rows, including the last one."""
    whole = _joined(parts)
    if len(whole) <= MAX_POINTS:
        return whole
    return whole.iloc[np.linspace(0, len(whole) - 1, MAX_POINTS).round().astype(int)]
