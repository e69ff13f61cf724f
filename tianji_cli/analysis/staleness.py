"""Staleness of the trained env steps: lag in weights versions, age in seconds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pandas as pd

from engine.trace.records import Staleness
from tianji_cli.analysis.throughput import bin_edges_s, nice_width_s

MAX_BINS = 200
MAX_LAGS = 10_000


def lag_over_time(staleness: pd.DataFrame, end_s: float) -> pd.DataFrame:
    """Lag and rollout age per time bin; per batch as long as there are at most 200 of them.

    Args:
        staleness: Rows of `Staleness`.
        end_s: End of the run, in seconds since training started.

    Returns:
        `t_s`, `lag_min`, `lag_mean` (over env steps), `lag_max` in versions, `age_mean_s`,
        `age_max_s` in seconds. Bins without a batch are left out.
    """
    if len(staleness) <= MAX_BINS:
        position = pd.Series(np.arange(len(staleness)), index=staleness.index)
    else:
        edges = bin_edges_s(end_s, nice_width_s(end_s / MAX_BINS))
        position = pd.Series(np.digitize(staleness["t_s"], edges[1:-1]), index=staleness.index)
    weighted = staleness.assign(
        lag_weighted=staleness["lag_mean"] * staleness["env_steps"],
        age_weighted=staleness["age_mean_s"] * staleness["env_steps"],
    )
    bins = weighted.groupby(position)
    num_steps = bins["env_steps"].sum()
    return pd.DataFrame(
        {
            "t_s": bins["t_s"].mean(),
            "lag_min": bins["lag_min"].min(),
            "lag_mean": bins["lag_weighted"].sum() / num_steps,
            "lag_max": bins["lag_max"].max(),
            "age_mean_s": bins["age_weighted"].sum() / num_steps,
            "age_max_s": bins["age_max_s"].max(),
        }
    ).reset_index(drop=True)


def lag_counts(rows: Sequence[Staleness]) -> dict[int, int]:
    """Env steps per lag (versions), over all batches."""
    totals: Counter[int] = Counter()
    for row in rows:
        totals.update(row.steps_by_lag)
    return dict(sorted(totals.items()))


def lag_histogram(rows: Sequence[Staleness]) -> pd.DataFrame:
    """`lag` (versions), `env_steps` and `share` of all consumed env steps.

    Without gaps; of a wider range than `MAX_LAGS`, only lags that occurred, and so many of them.
    """
    counts = lag_counts(rows)
    least, most = min(counts, default=0), max(counts, default=-1)
    is_wide = most - least >= MAX_LAGS
    lags = sorted(counts)[:MAX_LAGS] if is_wide else range(least, most + 1)
    steps = np.array([counts.get(lag, 0) for lag in lags], dtype="float64")
    total = max(1.0, float(sum(counts.values())))
    return pd.DataFrame(
        {"lag": np.array(lags, dtype="int64"), "env_steps": steps, "share": steps / total}
    )
