"""Env steps per second that were collected, consumed and trained."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from engine.trace.summary import STEADY_SHARE, steady_rate_per_s

TARGET_BINS = 60
MIN_GAPS_PER_BIN = 16
"""Least number of batches per bin; with fewer, the rate would show how batches fall into bins."""
MIN_BINS = 5
"""Least number of bins, for a run with few batches: a line needs points."""


def nice_width_s(width_s: float) -> float:
    """The next 1, 2 or 5 times a power of ten, in seconds.

    >>> nice_width_s(0.3), nice_width_s(7.0)
    (0.5, 10.0)
    """
    if width_s <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(width_s))
    factor = next((f for f in (1, 2, 5) if f * power >= width_s * (1 - 1e-9)), 10)
    return float(f"{factor * power:.6g}")


def bin_width_s(times_s: pd.Series, end_s: float) -> float:
    """A width for time bins over [0, end_s]: about 60 of them, none shorter than a few batches."""
    gap_s = float(times_s.diff().median()) if len(times_s) > 1 else 0.0
    shortest_s = min(MIN_GAPS_PER_BIN * gap_s, end_s / MIN_BINS)
    return nice_width_s(max(end_s / TARGET_BINS, shortest_s))


def bin_edges_s(end_s: float, width_s: float) -> np.ndarray:
    """Edges of equal bins from 0 to `end_s`; a short last bin is joined to the one before."""
    num_bins = max(1, round(end_s / width_s))
    edges = np.arange(num_bins + 1) * width_s
    edges[-1] = max(end_s, edges[-2] + width_s / 2)
    return edges


def rates_over_time(
    production: pd.DataFrame,
    consumption: pd.DataFrame,
    end_s: float,
    replay: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Rates per time bin.

    Args:
        production: Rows of `Production`.
        consumption: Rows of `Consumption`.
        end_s: End of the run, in seconds since training started.
        replay: Rows of `Replay`, which then say what was consumed.

    Returns:
        `t_s` (middle of the bin), `collect_per_s`, `consume_per_s` (env steps/s) and
        `trained_per_s` (samples/s, reuse counted); empty if nothing was ever collected.
    """
    columns = ("t_s", "collect_per_s", "consume_per_s", "trained_per_s")
    if production.empty and consumption.empty:
        return pd.DataFrame({column: pd.Series(dtype="float64") for column in columns})
    slower = consumption if len(consumption) > 1 else production
    edges = bin_edges_s(end_s, bin_width_s(slower["t_s"], end_s))
    return pd.DataFrame(
        {
            "t_s": (edges[:-1] + edges[1:]) / 2,
            "collect_per_s": _rate(production, "env_steps", edges),
            "consume_per_s": _rate(_consumed(consumption, replay), "env_steps", edges),
            "trained_per_s": _rate(consumption, "samples_trained", edges),
        }
    )


def _rate(frame: pd.DataFrame, column: str, edges_s: np.ndarray) -> np.ndarray:
    inside = frame["t_s"].clip(edges_s[0], edges_s[-1])
    totals, _ = np.histogram(inside, bins=edges_s, weights=frame[column])
    return np.asarray(totals / np.diff(edges_s))


def _consumed(consumption: pd.DataFrame, replay: pd.DataFrame | None) -> pd.DataFrame:
    """The table that counts consumed env steps: the replay store's, where there is one."""
    return consumption if replay is None or replay.empty else replay


def steady_rates(
    production: pd.DataFrame, consumption: pd.DataFrame, replay: pd.DataFrame | None = None
) -> dict[str, float | None]:
    """Rates over the steady window, by the very function that `summary.json` is written with.

    Returns:
        `collect_per_s`, `consume_per_s` (env steps/s), `trained_per_s` (samples/s); None where a
        counter spans no time.
    """
    return {
        "collect_per_s": _steady(production, "env_steps"),
        "consume_per_s": _steady(_consumed(consumption, replay), "env_steps"),
        "trained_per_s": _steady(consumption, "samples_trained"),
    }


def _steady(frame: pd.DataFrame, column: str) -> float | None:
    arrived = frame.sort_index()  # the coordinator counts rows in the order in which they arrive
    totals = arrived[column].cumsum().tolist()
    return steady_rate_per_s(list(zip(arrived["t_s"].tolist(), totals, strict=True)))


def steady_window_s(end_s: float) -> tuple[float, float]:
    """Begin and end of the steady window of a run that lasted `end_s`."""
    return (1 - STEADY_SHARE) * end_s, end_s
