"""How the return rose, and when it reached the threshold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.lib.stride_tricks import sliding_window_view

DEFAULT_WINDOW = 100


@dataclass(frozen=True)
class Crossing:
    """The moment at which the mean return reached the threshold.

    Attributes:
        t_s: Seconds since training started.
        env_steps: Env steps that the whole run had collected by then.
    """

    t_s: float
    env_steps: int


def moving_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Mean of the last `window` values; of all values so far where there are fewer.

    Every full window is summed afresh, so the mean carries no error from values long gone.

    Args:
        values: Shape [N].

    Returns:
        Shape [N].
    """
    num_partial = min(window - 1, len(values))
    partial = np.cumsum(values[:num_partial]) / np.arange(1, num_partial + 1)
    if len(values) < window:
        return partial
    return np.concatenate([partial, sliding_window_view(values, window).mean(axis=1)])


def episode_curve(episodes: pd.DataFrame, window: int = DEFAULT_WINDOW) -> pd.DataFrame:
    """Return per finished episode with its moving mean, in the order the coordinator heard them.

    Args:
        episodes: Rows of `Episode`.
        window: Episodes in the moving mean.

    Returns:
        `t_s` and `env_steps` (collected by the whole run), both never falling; `episode_return`,
        `return_mean` (of the last `window` episodes) and `is_full` (the window was full).
    """
    heard = episodes.sort_index()
    returns = heard["episode_return"].to_numpy(dtype="float64")
    return pd.DataFrame(
        {
            "t_s": heard["t_s"].cummax(),
            "env_steps": heard["env_steps_collected"].cummax(),
            "episode_return": returns,
            "return_mean": moving_mean(returns, window),
            "is_full": np.arange(1, len(returns) + 1) >= window,
        }
    )


def threshold_crossing(curve: pd.DataFrame, threshold: float | None) -> Crossing | None:
    """The first full window whose mean is at least `threshold`; None if there is none.

    Args:
        curve: From `episode_curve`.
        threshold: A return; None if the run had no threshold.
    """
    if threshold is None:
        return None
    above = curve[curve["is_full"] & (curve["return_mean"] >= threshold)]
    if above.empty:
        return None
    return Crossing(float(above["t_s"].iloc[0]), int(above["env_steps"].iloc[0]))
