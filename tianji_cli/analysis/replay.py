"""How often each collected env step has been trained on so far."""

from __future__ import annotations

import numpy as np
import pandas as pd

MAX_POINTS = 400


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
    keep = np.unique(np.linspace(0, len(frame) - 1, min(MAX_POINTS, len(frame))).round())
    return frame.iloc[keep.astype(int)].reset_index(drop=True)
