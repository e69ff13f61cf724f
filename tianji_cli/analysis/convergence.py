"""The return over time, and when it reached the threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.lib.stride_tricks import sliding_window_view

from engine.trace.columns import column_of
from engine.trace.records import Episode

DEFAULT_WINDOW = 100
MAX_ADDITIONS = 1 << 32
"""Additions that take about half a minute; above, windows are differences of running sums."""


@dataclass(frozen=True)
class ReturnCrossing:
    """The moment at which the mean return reached the threshold.

    Attributes:
        t_s: Seconds since training started.
        env_steps: Env steps that the whole run had collected by then.
    """

    t_s: float
    env_steps: int


def moving_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Mean of the last `window` values; of all values so far where there are fewer.

    Every full window is summed anew, so the mean carries no error from earlier values; very long
    windows are differences of running sums.

    Args:
        values: Shape [N].

    Returns:
        Shape [N].
    """
    with np.errstate(over="ignore", invalid="ignore"):  # of returns near the largest number
        return _means(values, window)


def _means(values: np.ndarray, window: int) -> np.ndarray:
    num_partial = min(window - 1, len(values))
    partial = np.cumsum(values[:num_partial]) / np.arange(1, num_partial + 1)
    if len(values) < window:
        return partial
    if window * len(values) > MAX_ADDITIONS:
        sums = np.cumsum(np.concatenate([[0.0], values]), dtype=np.longdouble)
        full = ((sums[window:] - sums[:-window]) / window).astype("float64")
    else:
        full = sliding_window_view(values, window).mean(axis=1)
    return np.concatenate([partial, full])


def episode_curve(episodes: Sequence[Episode], window: int = DEFAULT_WINDOW) -> pd.DataFrame:
    """Return per finished episode with its moving mean, in the order the coordinator heard them.

    Takes the columns that it needs and sorts nothing: there can be tens of millions of rows.

    Args:
        episodes: In the order in which they were written.
        window: Episodes in the moving mean.

    Returns:
        `t_s` and `env_steps` (collected by the whole run), both never falling; `episode_return`,
        `return_mean` (of the last `window` episodes) and `is_full` (the window was full).
    """
    t_s = np.asarray(column_of(episodes, "t_s"), dtype="float64")
    env_steps = np.asarray(column_of(episodes, "env_steps_collected"), dtype="int64")
    returns = np.asarray(column_of(episodes, "episode_return"), dtype="float64")
    return pd.DataFrame(
        {
            "t_s": np.maximum.accumulate(t_s),
            "env_steps": np.maximum.accumulate(env_steps),
            "episode_return": returns,
            "return_mean": moving_mean(returns, window),
            "is_full": np.arange(1, len(returns) + 1) >= window,
        }
    )


def evaluation_curve(evaluations: pd.DataFrame) -> pd.DataFrame:
    """Mean return of each evaluation, in the columns of `episode_curve` that crossings need.

    Args:
        evaluations: Rows of `Evaluation`.
    """
    heard = evaluations.sort_index()
    return pd.DataFrame(
        {
            "t_s": heard["t_s"].cummax(),
            "env_steps": heard["env_steps_collected"].cummax(),
            "return_mean": heard["return_mean"].to_numpy(dtype="float64"),
            "is_full": np.ones(len(heard), dtype=bool),
        }
    )


def threshold_crossing(
    curve: pd.DataFrame, threshold: float | None, streak: int = 1
) -> ReturnCrossing | None:
    """The first row that ends `streak` full windows, one after the other, of at least `threshold`.

    Args:
        curve: From `episode_curve` or `evaluation_curve`.
        threshold: A return; None if the run had no threshold.
        streak: Rows.

    Returns:
        None if there is none.
    """
    if threshold is None:
        return None
    holds = (curve["is_full"] & (curve["return_mean"] >= threshold)).to_numpy(dtype=bool)
    if len(holds) < streak:
        return None
    counts = np.cumsum(np.concatenate([[0], holds]))
    held = counts[streak:] - counts[:-streak] == streak
    if not held.any():
        return None
    row = curve.iloc[int(held.argmax()) + streak - 1]
    return ReturnCrossing(float(row["t_s"]), int(row["env_steps"]))
