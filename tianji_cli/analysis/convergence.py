"""The return over time, and when it reached the threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.lib.stride_tricks import sliding_window_view

from engine.trace.columns import column_of, mappings_of
from engine.trace.records import Episode, Evaluation

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


def returns_of(rows: Sequence[Episode] | Sequence[Evaluation], name: str | None) -> np.ndarray:
    """The return of the named agent or policy in each row, [rows]; NaN where it has none.

    Args:
        rows: Episodes, or evaluations with their means.
        name: None: that of the whole environment.
    """
    is_evaluated = bool(rows) and isinstance(rows[0], Evaluation)
    if name is None:
        whole = "return_mean" if is_evaluated else "episode_return"
        return np.asarray(column_of(rows, whole), dtype="float64")
    for field in ("agent_returns", "policy_returns"):
        column = mappings_of(rows, Evaluation if is_evaluated else Episode, field)
        if name in column.names:
            return column.series(name, len(rows))
    return np.full(len(rows), np.nan)


def episode_curve(
    episodes: Sequence[Episode], window: int = DEFAULT_WINDOW, name: str | None = None
) -> pd.DataFrame:
    """Return per finished episode with its moving mean, in the order the coordinator heard them.

    Takes the columns that it needs and sorts nothing: there can be tens of millions of rows.

    Args:
        episodes: In the order in which they were written.
        window: Episodes in the moving mean.
        name: Whose return, see `returns_of`.

    Returns:
        `t_s` and `env_steps` (collected by the whole run), both never falling; `episode_return`,
        `return_mean` (of the last `window` episodes) and `is_full` (the window was full).
    """
    t_s = np.asarray(column_of(episodes, "t_s"), dtype="float64")
    env_steps = np.asarray(column_of(episodes, "env_steps_collected"), dtype="int64")
    returns = returns_of(episodes, name)
    return pd.DataFrame(
        {
            "t_s": np.maximum.accumulate(t_s),
            "env_steps": np.maximum.accumulate(env_steps),
            "episode_return": returns,
            "return_mean": moving_mean(returns, window),
            "is_full": np.arange(1, len(returns) + 1) >= window,
        }
    )


def evaluation_curve(evaluations: Sequence[Evaluation], name: str | None = None) -> pd.DataFrame:
    """Mean return of each evaluation, in the columns of `episode_curve` that crossings need.

    Args:
        evaluations: In the order in which they were written.
        name: Whose return, see `returns_of`.
    """
    t_s = np.asarray(column_of(evaluations, "t_s"), dtype="float64")
    env_steps = np.asarray(column_of(evaluations, "env_steps_collected"), dtype="int64")
    return pd.DataFrame(
        {
            "t_s": np.maximum.accumulate(t_s),
            "env_steps": np.maximum.accumulate(env_steps),
            "return_mean": returns_of(evaluations, name),
            "is_full": np.ones(len(evaluations), dtype=bool),
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
